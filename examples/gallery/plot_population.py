"""
How do I train many networks at once?
=====================================

Replicas are networks that share their shape and nothing else: each has its own first weights, sequences and learning
rate. One call trains all of them, with the bits that each would have alone.
"""

import numpy as np

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=20, n_out=task.n_out, loss=task.loss)
R = 24
rates = np.geomspace(0.001, 0.5, R)
when = {"max_updates": 1500, "record_every": 100, "evaluate_every": 500}
recipe = nf.Recipe(lr=rates, lengths=12, clip=nf.Clip("norm", 1.0), evaluate_size=500, **when)
run = nf.train(net, nf.init(net, "basic_tanh", rng=0, replicas=R), task, recipe)

# %%
# Rows of the history have a number for each replica.

with plot.page("Twenty-four learning rates in one run", "Temporal order, 12 steps", (10, 3.6)) as figure:
    left, right = figure.subplots(1, 2)
    for updates, score, colour in zip(run.evaluations["update"], run.evaluations["score"], plot.shades(3), strict=True):
        left.plot(rates, 100 * np.array(score), "o-", color=colour, markersize=4, label=f"{updates:,} updates")
    left.set(xscale="log", xlabel="learning rate", ylabel="wrong (%)")
    plot.grid(left)
    left.legend(frameon=False)
    plot.learning_curve(run, "norm", ax=right)

alternative_text = "Left: the score against the learning rate, below some rate nothing is learnt in time. Right: norms"
