"""Thin entry points: each parses a command line, calls the library, and shows what came of it."""
