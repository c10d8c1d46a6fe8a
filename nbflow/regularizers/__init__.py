"""Regularizers in NumPy, added to a gradient once an update; one file each."""
