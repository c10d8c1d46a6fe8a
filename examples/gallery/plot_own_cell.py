"""
How do I try a cell of my own?
==============================

A leaky unit keeps part of its state at every step: h' = (1 - rate) h + rate tanh(a). Written as one function of
single numbers it is a cell; nbflow finds its derivatives by complex steps, and every measure works. How far back does
the gradient reach, for three rates?
"""

import nbflow as nf
from nbflow import plot
from nbflow.scalars import tanh


def leaky(rate):
    """Return a cell that moves by `rate` at every step."""
    kept, moved = 1.0 - rate, rate

    @nf.unit
    def step(a_in, a_rec, s):  # tuples of gates, gates and states -> states, and what the way back needs
        return (kept * s[0] + moved * tanh(a_in[0] + a_rec[0]),), ()

    return nf.Cell(gates=("a",), states=("h",), step=step, carries=True)


# %%
# The cell goes where a name goes. `check_gradient` tells whether its derivative is right, in double precision.

task = nf.load_task("temporal_order")
net = nf.Network(leaky(0.25), task.n_in, 20, task.n_out, task.loss, dtype="float64")
theta = nf.init(net, "orthogonal", rng=0)
small = task.sample(seed=0, index=0, batch_size=2, length=10, dtype="float64")
print(nf.check_gradient(net, theta, small).error_complex)

# %%

batch = task.sample(seed=0, index=0, batch_size=30, length=50, dtype="float64")
with plot.page("A leaky cell", "One set of first weights, three rates", (7, 4)) as figure:
    axes = figure.subplots()
    for rate, colour in zip((1.0, 0.25, 0.05), plot.COLOURS, strict=False):
        net = nf.Network(leaky(rate), task.n_in, 20, task.n_out, task.loss, dtype="float64")
        seen = nf.gains_by_lag(net, 0.7 * theta, batch)
        plot.gradient_by_lag(seen, relative=True, colour=colour, label=f"rate {rate}", ax=axes)
    axes.legend(frameon=False)

alternative_text = "The gradient by lag for three rates: the slower the unit, the farther back the gradient reaches"
