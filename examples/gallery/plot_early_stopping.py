"""
When should a training on my own arrays end?
============================================

Waves of three frequencies, from anywhere and under noise, are to be told apart. `nf.arrays` makes a task of NumPy
arrays and holds a part out; a training ends when the score on it has not been better for a while, and the best
parameters are kept.
"""

import numpy as np

import nbflow as nf
from nbflow import plot

rng = np.random.default_rng(0)
kinds = rng.integers(0, 3, 300)
phases = np.array([0.2, 0.3, 0.5])[kinds] * np.arange(30)[:, None] + rng.uniform(0, 6, 300)
waves = np.sin(phases) + rng.normal(0, 0.8, phases.shape)  # (T, n)
task = nf.arrays(waves[..., None].astype(np.float32), kinds, held_out=0.2, test=0.2)
print(task)

# %%

net = nf.Network("gru", task.n_in, 24, task.n_out, loss=task.loss)
recipe = nf.Recipe(
    optimizer="adam", lr=0.01, clip=nf.Clip("norm", 1.0), max_updates=1500, record_every=25, evaluate_every=25
)
run = nf.train(net, nf.init(net, "glorot", rng=0), task, recipe, callbacks=[nf.EarlyStopping(patience=8)])
print(run.updates, run.best.update, nf.evaluate(net, run.best.theta, task.test))

# %%

with plot.page("Ended when it got no better", f"The best score after {run.best.update} updates", (9, 3.4)) as figure:
    left, right = figure.subplots(1, 2)
    plot.learning_curve(run, "score", ax=left)
    plot.learning_curve(run, "loss", colour=plot.COLOURS[1], ax=right)
    for axes in (left, right):
        plot.reference(axes, x=run.best.update)

alternative_text = (
    "Left: the part wrong on held-out sequences falls and stays. Right: the training loss goes on falling"
)
