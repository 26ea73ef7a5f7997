"""Flax Linen models behind four pure functions: embed, encode, score, classify; of one sequence or of pairs."""
