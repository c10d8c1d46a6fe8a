"""Gradients, products with derivatives, objectives and clips: one call, one computation."""
