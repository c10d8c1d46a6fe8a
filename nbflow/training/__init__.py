"""Training: a run, update by update."""
