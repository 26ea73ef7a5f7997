"""bAbI task 3: questions with three supporting facts."""
