"""Experiments: many runs, over settings and seeds."""
