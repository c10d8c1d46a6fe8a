"""Penalties of the gain, one a file; the file's name is the public name."""
