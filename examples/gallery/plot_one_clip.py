"""
What does a clip do to one step?
================================

Five rules meet the same gradient, each with a threshold that leaves a fifth of its length or so. Rules with one norm
over everything keep the direction; rules that look at entries, arrays or units turn it.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=50, n_out=task.n_out, loss=task.loss)
theta = nf.init(net, "smart_tanh", rng=0)
batch = task.sample(seed=0, index=0, batch_size=20, length=50)
out = nf.gradient(net, theta, batch)
norm = nf.clip(net, out.d_theta, nf.Clip("norm", 1.0)).norm

# %%
# A threshold measures another thing for each rule: the whole, an entry, an array, or a unit against its own weights.

ways = {
    "norm": nf.Clip("norm", 0.2 * norm),
    "value": nf.Clip("value", 0.012 * norm),
    "block": nf.Clip("block", 0.15 * norm),
    "unit": nf.Clip("unit", 0.02),
    "random": nf.Clip("random", 0.2 * norm),
}
done = {name: nf.clip(net, out.d_theta, how, theta=theta, rng=0) for name, how in ways.items()}

with plot.page(
    "One gradient, five clips", "Norm before and after, direction, and what was touched", (7, 3.4)
) as figure:
    plot.clip_report(done, ax=figure.subplots())

alternative_text = (
    "An arrow for each rule from the norm before to the norm after, with cosines from 1 for norm to 0 for random"
)

# %%
# A step in a random direction, which the book offers as a way out where a gradient explodes, has nothing of the
# gradient but its place in time: the cosine is near 0.
