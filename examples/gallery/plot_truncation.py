"""
What does truncated back-propagation hide?
==========================================

Cutting a long sequence into windows, and the gradient at their edges, saves memory and time. What is lost is every
influence that crosses an edge. The truncated gradient is held against the whole one: its cosine, for windows from one
step to all.
"""

import numpy as np

import nbflow as nf
from nbflow import plot

task = nf.load_task("addition")
net = nf.Network("tanh", task.n_in, 30, task.n_out, loss=task.loss, dtype="float64")
batch = task.sample(seed=0, index=0, batch_size=30, length=40, dtype="float64")
steps = len(batch.weights)
targets = np.broadcast_to(batch.targets[-1:], batch.targets.shape).copy()
batch = batch._replace(targets=targets, weights=np.full_like(batch.weights, 1 / batch.weights.size))


def truncated(theta, window):
    """Return the sum of the gradients of windows, each from the state that the one before left."""
    state, total = np.zeros((30, 1, 30)), 0.0
    for start in range(0, steps, window):
        part = nf.Batch(*(array[start : start + window] for array in batch))
        out = nf.gradient(net, theta, part, state=state)
        state, total = out.state, total + out.d_theta
    return total


# %%
# A loss at every step, so that every window has a gradient of its own.

windows = [1, 2, 4, 8, 16, 24, steps]
with plot.page("The cosine with the whole gradient", "A loss at each step; three spectral radii", (7, 4)) as figure:
    axes = figure.subplots()
    for scale, colour in zip((0.5, 0.9, 1.2), plot.COLOURS, strict=False):
        theta = nf.init(net, "orthogonal", rng=0)
        nf.unpack(net, theta).w_rec[:] *= scale
        whole = nf.gradient(net, theta, batch).d_theta
        parts = [truncated(theta, window) for window in windows]
        cosines = [g @ whole / np.linalg.norm(g) / np.linalg.norm(whole) for g in parts]
        axes.plot(windows, cosines, "o-", color=colour, label=f"spectral radius {scale}")
    axes.set(xscale="log", xlabel="window (steps)", ylabel="cosine with the whole gradient")
    plot.grid(axes)
    axes.legend(frameon=False)

alternative_text = (
    "Cosines that rise to 1 with the window: the larger the spectral radius, the longer the window must be"
)
