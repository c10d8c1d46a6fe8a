"""
Where do first weights put the eigenvalues?
===========================================

Repeated multiplication by one matrix grows or shrinks by its eigenvalues: inside the unit circle what is multiplied
fades, outside it grows. First weights for recurrent networks differ in where they put them.
"""

import nbflow as nf
from nbflow import plot

net = nf.Network(cell="tanh", n_in=6, n_hidden=100, n_out=4)

# %%
# `smart_tanh` connects each unit to 15 others and scales the whole to a spectral radius of 0.95 (Pascanu, Mikolov,
# Bengio 2013); an orthogonal matrix has all of them on the circle; `basic_tanh` and `glorot` draw normal and
# orthogonal ones.

with plot.page("Eigenvalues of the recurrent matrix", "100 units; the circle has radius 1", (11, 4)) as figure:
    for axes, name in zip(figure.subplots(1, 3), ("basic_tanh", "smart_tanh", "orthogonal"), strict=True):
        theta = nf.init(net, name, rng=0)
        plot.eigenvalues(net, theta, ax=axes)
        seen = nf.recurrent_spectrum(net, theta)
        axes.set_title(f"{name}\nspectral radius {seen.radius[0]:.2f}, norm {seen.norm[0]:.2f}")

alternative_text = (
    "Three clouds of eigenvalues in the complex plane: filling a disc, a smaller disc, and lying on the circle"
)

# %%
# The spectral norm bounds what a single step can do, the radius what many steps do in the end. They are the same for
# an orthogonal matrix, and far apart for a sparse one: gradients can grow for a while and still vanish.
