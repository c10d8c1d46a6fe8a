"""Synthetic tasks, one a file; the file's name is the public name."""
