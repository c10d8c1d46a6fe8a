"""
Which cure learns the task, and how sure are we?
================================================

A single run proves little: each method is trained with several seeds, and counted. Wilson intervals say what a few
runs can say, and survival curves show when they got there, with those that never did counted as such.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbflow as nf
from nbflow import plot, statistics

SEEDS, UPDATES = 8, 3000
recipe = nf.Recipe(
    lr=0.03, lengths=20, max_updates=UPDATES, evaluate_every=100, evaluate_size=500, record_every=UPDATES
)
cures = {
    "plain": {},
    "clipped": {"clip": nf.Clip("norm", 1.0)},
    "with Omega": {"clip": nf.Clip("norm", 1.0), "flow": nf.Flow("squared", alpha=2.0, reduction="mean")},
}
experiments = {
    name: nf.Experiment("temporal_order", replace(recipe, **cure), n_hidden=30) for name, cure in cures.items()
}

# %%
# A sweep keeps its runs in a store, a line each, and goes on where it was interrupted. A script would let it use all
# cores; threads will do here.

with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
    found = {
        name: nf.sweep(one, SEEDS, Path(folder) / f"{name}.jsonl", executor=pool, progress=False).runs
        for name, one in experiments.items()
    }
passages = {name: [run["first_passage"] for run in runs] for name, runs in found.items()}

# %%

with plot.page("Three methods, eight seeds each", "Temporal order, 20 steps; 95 % intervals", (10, 3.6)) as figure:
    left, right = figure.subplots(1, 2)
    for k, (name, at) in enumerate(passages.items()):
        solved = sum(one is not None for one in at)
        plot.success([k], [solved], SEEDS, colour=plot.COLOURS[k], ax=left)
        times = statistics.passages(at, UPDATES)
        plot.survival(statistics.survival(times), colour=plot.COLOURS[k], label=name, ax=right)
    left.set_xticks(range(len(cures)), list(cures))
    left.set_xlabel("method")
    plot.legend_beside(right, columns=3)

alternative_text = (
    "Left: the part of runs that solved the task, with intervals. Right: the part not yet solved over updates"
)
