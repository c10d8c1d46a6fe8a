"""Thresholds that follow the update or the norms, one a file; the file's name is the public name."""
