"""Optimiser, step, population, schedule, loop, checkpoints."""
