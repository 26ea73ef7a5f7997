"""Texts: raw archives, prepared records, text rules, vocabulary, word vectors and batches."""
