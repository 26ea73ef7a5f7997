"""bAbI task 2: questions with two supporting facts."""
