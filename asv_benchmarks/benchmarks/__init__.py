"""How fast nbflow is, commit by commit; a new cell, loss, rule or task is measured the day its file is there.

Usage: make bench, or make bench BENCH_ARGS='--bench Gradient' for a part of it
"""
