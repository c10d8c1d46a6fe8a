"""
What does Omega do to the gains?
================================

Omega is a penalty on steps that shrink or stretch the gradient. Two trainings of the same network from the same
weights on the same sequences, with and without it, and the gains of all steps afterwards.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=50, n_out=task.n_out, loss=task.loss)
theta = nf.init(net, "smart_tanh", rng=0)
batch = task.sample(seed=1, index=0, batch_size=50, length=50)

# %%
# The penalty ``squared`` with the reduction ``mean`` and alpha 2 is what the authors' code computes.

seen = {}
for name, flow in {"without Omega": None, "with Omega": nf.Flow("squared", alpha=2.0, reduction="mean")}.items():
    recipe = nf.Recipe(lr=0.01, lengths=50, clip=nf.Clip("norm", 1.0), flow=flow, max_updates=1500, evaluate_every=0)
    seen[name] = nf.gains_by_lag(net, nf.train(net, theta, task, recipe).theta, batch)

# %%

with plot.page("Gains after 1,500 updates", "50 steps of 50 fresh sequences", (10, 3.6)) as figure:
    left, right = figure.subplots(1, 2)
    for (name, gains), colour in zip(seen.items(), plot.COLOURS, strict=False):
        plot.gain_histogram(gains, colour=colour, label=name, ax=left)
        plot.gradient_by_lag(gains, relative=True, colour=colour, label=name, ax=right)
    left.legend(frameon=False)

alternative_text = (
    "Left: histograms of gains, with Omega nearer to 1. Right: the gradient by lag, which with Omega falls less"
)
