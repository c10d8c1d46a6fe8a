"""
What is a cliff in the loss, and what does clipping do there?
=============================================================

One sigmoid unit without input, iterated 50 times, should end at 0.7. Its loss over the recurrent weight and the bias
has a wall: beside it small changes lead to another fixed point. A plain gradient step that meets the wall is thrown
far away; a clipped one stays near (Pascanu, Mikolov, Bengio 2013, figure 6; Goodfellow, Bengio, Courville 2016,
figure 10.17).
"""

import numpy as np

import nbflow as nf
from nbflow import plot

STEPS = 50
net = nf.Network("sigmoid", n_in=1, n_hidden=1, n_out=1, loss="square", dtype="float64")


def gradient(points):
    """Return the loss (R,) and its gradient by w and b (R, 2) at R points."""
    count = len(points)
    theta = np.zeros((count, net.size))
    parts = nf.unpack(net, theta)
    parts.w_rec[:, 0, 0, 0], parts.bias[:, 0, 0], parts.w_out[...] = *points.T, 1.0
    weights = np.zeros((count, STEPS, 1))
    weights[:, -1] = 1.0
    batch = nf.Batch(np.zeros((count, STEPS, 1, 1)), np.full((count, STEPS, 1, 1), 0.7), weights)
    start = np.full((count, 1, 1, 1), 0.6225)
    out = nf.gradient(net, theta, batch, state=start)
    found = nf.unpack(net, out.d_theta)
    return out.loss, np.stack([found.w_rec[:, 0, 0, 0], found.bias[:, 0, 0]], axis=1)


# %%
# A replica for each point of the map, all in one call.

w, b = np.linspace(4.0, 6.2, 161), np.linspace(-2.9, 0.6, 161)
loss = gradient(np.stack(np.meshgrid(w, b), -1).reshape(-1, 2))[0].reshape(len(b), len(w))


def descend(threshold):
    """Return the points of 80 steps down, each gradient clipped to a threshold."""
    points = [np.array([4.7, -1.9])]
    for _ in range(80):
        g = gradient(points[-1][None])[1][0]
        points.append(points[-1] - 0.2 * g * min(1.0, threshold / np.linalg.norm(g)))
    return np.array(points)


with plot.page("One step from a cliff", "80 steps at a rate of 0.2, from the white dot", (7, 5)) as figure:
    axes = figure.subplots()
    plot.cliff(w, b, loss, {"plain": descend(np.inf), "clipped to 0.3": descend(0.3)}, ax=axes)
    axes.legend(loc="lower right")

alternative_text = (
    "A map of the loss with a sharp edge; the plain path leaps across the map, the clipped one stays at its foot"
)
