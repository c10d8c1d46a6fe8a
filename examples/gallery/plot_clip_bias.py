"""
What does a clip do to the gradient on average?
===============================================

Training follows the mean of clipped minibatch gradients. That need not be the true gradient made shorter: large
examples count for less. Here four ways of clipping, with thresholds that shorten minibatch gradients alike, are held
against the true gradient of the same reference set.
"""

import nbflow as nf
from nbflow import plot

task = nf.load_task("addition")
net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=20, n_out=task.n_out, loss=task.loss)
recipe = nf.Recipe(lr=0.01, lengths=20, clip=nf.Clip("norm", 1.0), max_updates=15, evaluate_every=0)
theta = nf.train(net, nf.init(net, "smart_tanh", rng=0), task, recipe).theta

# %%
# `matched_threshold` looks for the threshold at which a rule leaves 60 % of the mean norm.

batches = [task.sample(seed=1, index=k, batch_size=10, length=20, stream="evaluation") for k in range(150)]
ways = {}
for rule in ("norm", "value", "block", "unit"):
    threshold = nf.matched_threshold(net, theta, batches, nf.Clip(rule, 1.0), part=0.6)
    ways[rule] = nf.Clip(rule, threshold)
found = nf.clipping_bias(net, theta, batches, ways, resamples=300, rng=0)

# %%

with plot.page("What each clip does on average", "95 % intervals over minibatches", (10, 2.8)) as figure:
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), ("cosine", "relative_norm"), strict=True):
        plot.clipping_bias(found, metric, ax=axes)

alternative_text = "Cosines with the true gradient: 1 for norm, 0.96 for block and unit, 0.82 for value; norms: 0.6"
