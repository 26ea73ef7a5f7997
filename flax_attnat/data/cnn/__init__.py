"""CNN question answering: articles with anonymised entities."""
