"""
Are the gates of my network shut?
=================================

A gate at the end of its range passes next to no gradient. Each point is a gate of a unit: how often it is near the
upper end, and how often near the lower one (after Karpathy, Johnson, Fei-Fei 2015).
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="lstm", n_in=task.n_in, n_hidden=40, n_out=task.n_out, loss=task.loss)
theta = nf.init(net, "glorot", rng=0)
batch = task.sample(seed=1, index=0, batch_size=30, length=30)
recipe = nf.Recipe(optimizer="adam", lr=0.01, lengths=30, clip=nf.Clip("norm", 1.0), max_updates=600, evaluate_every=0)
trained = nf.train(net, theta, task, recipe).theta

# %%

with plot.page("Four gates of 40 units", "At which part of the steps each is near an end", (9, 4.4)) as figure:
    for axes, name, parameters in zip(
        figure.subplots(1, 2), ("before", "after 600 updates"), (theta, trained), strict=True
    ):
        plot.saturation(nf.saturation(net, parameters, batch), ax=axes)
        axes.set_title(name)
    axes.legend(title="gate")

alternative_text = "Points for the gates i, f, g and o of each unit: at the origin before training, spread out after it"
