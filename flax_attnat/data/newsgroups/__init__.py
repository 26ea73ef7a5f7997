"""Posts of two of the 20 Newsgroups, baseball or hockey."""
