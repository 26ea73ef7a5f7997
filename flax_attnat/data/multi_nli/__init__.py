"""The Multi-Genre Natural Language Inference corpus."""
