"""Flax Linen models behind four pure functions: embed, encode, score, classify."""
