"""The Stanford Natural Language Inference corpus."""
