"""
How do Lyapunov exponents change in training?
=============================================

An exponent is the mean rate at which a direction of the state grows or shrinks along a sequence, in nats a step.
Below 0 what happened is forgotten, at 0 it is kept, above 0 small differences grow. Training with Omega moves the
largest towards 0.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=50, n_out=task.n_out, loss=task.loss)
theta = nf.init(net, "basic_tanh", rng=0)
inputs = task.sample(seed=1, index=0, batch_size=8, length=100).inputs
spectra = [(0, nf.lyapunov_exponents(net, theta, inputs, k=10, discard=20))]


def look(run):
    """Measure the spectrum at every row of the history."""
    spectra.append((run.updates, nf.lyapunov_exponents(net, run.theta, inputs, k=10, discard=20)))


# %%
# A callback sees the parameters at every row of the history.

flow, clip = nf.Flow("squared", alpha=2.0, reduction="mean"), nf.Clip("norm", 1.0)
recipe = nf.Recipe(lr=0.01, lengths=50, clip=clip, flow=flow, max_updates=900, record_every=300, evaluate_every=0)
run = nf.train(net, theta, task, recipe, callbacks=[look])

# %%

with plot.page("Ten exponents, four moments", "Means over 8 sequences and their intervals", (7, 4)) as figure:
    axes = figure.subplots()
    for (updates, seen), colour in zip(spectra, plot.shades(len(spectra)), strict=True):
        plot.spectrum(seen, "lyapunov", colour=colour, label=f"{updates:,} updates", ax=axes)
    axes.legend(frameon=False)

alternative_text = (
    "Lyapunov exponents from the largest down, four lines, of which the first values rise to 0 in training"
)
