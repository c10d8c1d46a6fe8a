"""
Why does the gradient vanish?
=============================

On its way back each step multiplies the gradient by the transposed Jacobian of the step. If that shrinks it a little
every time, little is left after fifty steps, and what happened so long ago cannot be learnt from. Three sets of first
weights, alike but for the spectral radius of the recurrent matrix, show what becomes of it.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=50, n_out=task.n_out, loss=task.loss)
batch = task.sample(seed=0, index=0, batch_size=50, length=50)

# %%
# An orthogonal matrix keeps lengths; times 0.7 it shrinks them, times 1.3 it stretches them. What tanh does comes on
# top: its slope is 1 at 0 and less everywhere else, so that even the orthogonal one loses a little, and the stretched
# one gains less than it would.

with plot.page("How much of the gradient is left?", "Means over 50 sequences and their intervals", (7, 4)) as figure:
    axes = figure.subplots()
    for scale, colour in zip((0.7, 1.0, 1.3), plot.COLOURS, strict=False):
        theta = nf.init(net, "orthogonal", rng=0)
        nf.unpack(net, theta).w_rec[:] *= scale
        seen = nf.gains_by_lag(net, theta, batch)
        plot.gradient_by_lag(seen, relative=True, colour=colour, label=f"spectral radius {scale}", ax=axes)
    axes.legend(frameon=False)

alternative_text = (
    "The size of the gradient against the lag: straight lines on a logarithmic scale, falling fastest for 0.7"
)
