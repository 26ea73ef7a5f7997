"""The Stanford Sentiment Treebank, binary sentences."""
