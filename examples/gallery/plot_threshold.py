"""
Where should the threshold be?
==============================

Half the mean norm to ten times the mean norm is what Pascanu, Mikolov and Bengio (2013) found to work.
`calibrate_threshold` trains a little without a clip and looks at the norms; a threshold may also follow them, as
AutoClip's percentile does.
"""

from dataclasses import replace

import numpy as np

import nbflow as nf
from nbflow import plot

task = nf.load_task("addition")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=30, n_out=task.n_out, loss=task.loss)
theta = nf.init(net, "smart_tanh", rng=0)
plain = nf.Recipe(lr=0.01, lengths=30, max_updates=300, record_every=10, evaluate_every=0)
seen = nf.calibrate_threshold(net, theta, task, plain, updates=300)

# %%

follows = nf.Clip("norm", nf.load_threshold("percentile", percent=50.0))
run = nf.train(net, theta, task, replace(plain, clip=follows))

# %%

with plot.page("Norms, and a threshold that follows them", "Dashed: half the mean, and the mean", (10, 3.4)) as figure:
    left, right = figure.subplots(1, 2)
    norms = seen.norms[np.isfinite(seen.norms)]
    left.hist(np.log10(norms), bins=40, color=plot.COLOURS[1])
    for at in (seen.low, seen.mean):
        plot.reference(left, x=float(np.log10(at)), behind=False)
    left.set(xlabel="log10 of the norm of the gradient", ylabel="updates")
    plot.learning_curve(run, "norm", ax=right)
    right.plot(run.history["update"], run.history["threshold"], color=plot.COLOURS[2], label="threshold")
    right.legend(frameon=False)

alternative_text = "Left: a histogram of gradient norms. Right: norm, clipped norm and the threshold in training"
