"""
Which learning rate goes with which first weights?
==================================================

A sweep over two settings is a map. `nf.grid` makes every combination of an experiment's fields, `nf.sweep` trains
them all, and each field of the map is the median score of its runs.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbflow as nf
from nbflow import plot

base = nf.Experiment(
    "temporal_order",
    nf.Recipe(lengths=15, clip=nf.Clip("norm", 1.0), max_updates=1200, evaluate_every=1200, evaluate_size=500),
    n_hidden=20,
)
swept = nf.grid(base, {"init": ["basic_tanh", "smart_tanh", "orthogonal"], "recipe.lr": [0.003, 0.01, 0.03, 0.1]})

# %%

with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
    runs = nf.sweep(swept, 3, Path(folder) / "runs.jsonl", executor=pool, progress=False).runs

# %%

words = "Temporal order, 15 steps, 1,200 updates: the part of fresh sequences that is wrong"
with plot.page("A map of settings", words, (7, 3.4)) as figure:
    plot.sweep_heatmap(runs, "recipe.lr", "init", "score", ax=figure.subplots())

alternative_text = "A map of first weights against learning rates, with the median score of three runs in each field"

# %%
# Three runs a field are few. `nbflow.statistics` has what can be said of more, and ``"solved"`` in place of
# ``"score"`` the part that solved the task.
