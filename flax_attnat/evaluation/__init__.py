"""Measures of trained runs: prediction, gradient importance, agreement with attention."""
