"""bAbI task 1: questions with one supporting fact."""
