"""
Does the way of clipping matter for text?
=========================================

A small character model is trained by five clips with thresholds of the same kind of size. The text is a few sentences
over and over in random order, so that there is something to learn in seconds; a book of your own is
``nbflow.data.read_text("book.txt")``.
"""

import tempfile
from pathlib import Path

import numpy as np

import nbflow as nf
from nbflow import plot

LINES = ("the gradient vanishes slowly. ", "a cliff throws it far away. ", "clip it, and it stays. ", "so it goes on. ")
rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "text.txt"
    path.write_text("".join(LINES[k] for k in rng.integers(0, len(LINES), 600)), encoding="utf-8")
    task = nf.data.read_text(path).task()
print(task)

# %%

net = nf.Network("tanh", task.n_in, 40, task.n_out, loss=task.loss)
theta = nf.init(net, "smart_tanh", rng=0)
runs = {}
for rule, threshold in {"norm": 0.5, "value": 0.02, "block": 0.3, "normalize": 0.5, "random": 0.5}.items():
    clip = nf.Clip(rule, threshold)
    recipe = nf.Recipe(lr=0.5, lengths=30, clip=clip, max_updates=400, record_every=50, evaluate_every=50)
    runs[f"{rule} {threshold:g}"] = nf.train(net, theta, task, recipe)

# %%

with plot.page("Five clips on text", "400 updates each from the same weights", (7, 4)) as figure:
    axes = figure.subplots()
    for (name, run), colour in zip(runs.items(), plot.COLOURS, strict=False):
        plot.learning_curve(run, "score", colour=colour, label=name, ax=axes)
    axes.legend(frameon=False)

alternative_text = "Bits per character over updates: four clips fall together, the random one stays above"
