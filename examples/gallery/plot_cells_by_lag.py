"""
Do gates carry the gradient, and does training help?
====================================================

The size of the gradient by lag, for a tanh network, an LSTM and a GRU of the same size, before and after some
training on the same task. A straight line down is a gradient that vanishes at a constant rate.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
batch = task.sample(seed=1, index=0, batch_size=50, length=30)
recipe = nf.Recipe(
    "adam", lr=0.003, lengths=30, clip=nf.Clip("norm", 1.0), max_updates=800, evaluate_every=800, evaluate_size=1000
)

# %%
# Adam for all three, at one rate: this is a look at gradients, and no contest.

before, after, wrong = {}, {}, {}
for cell in ("tanh", "lstm", "gru"):
    net = nf.Network(cell=cell, n_in=task.n_in, n_hidden=30, n_out=task.n_out, loss=task.loss)
    theta = nf.init(net, "glorot", rng=0)
    run = nf.train(net, theta, task, recipe)
    before[cell], after[cell] = (nf.gains_by_lag(net, parameters, batch) for parameters in (theta, run.theta))
    wrong[cell] = 100 * run.evaluations["score"][-1]

# %%

words = "Solid: after 800 updates. Faint: before. Bands: intervals over 50 sequences."
with plot.page("Three cells, before and after", words, (11, 3.6)) as figure:
    for axes, cell, colour in zip(figure.subplots(1, 3, sharey=True), wrong, plot.COLOURS, strict=False):
        plot.gradient_by_lag(before[cell], relative=True, colour=plot.inks(axes).faint, ax=axes)
        plot.gradient_by_lag(after[cell], relative=True, colour=colour, ax=axes)
        axes.set_title(f"{cell}: {wrong[cell]:.0f} % wrong")
        axes.label_outer()

alternative_text = (
    "Three panels with the size of the gradient by lag, for three cells; after training far more of it is left"
)
