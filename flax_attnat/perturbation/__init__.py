"""Perturbations as pure functions of a loss: no model, no module system, no state."""
