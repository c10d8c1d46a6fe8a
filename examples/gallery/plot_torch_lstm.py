"""
Where does the gradient of a PyTorch LSTM go?
=============================================

A fused LSTM shows the gradient of its weights and nothing of the way there. Its `state_dict` is enough to see the
rest: the gradient at every step, at every unit of h and of c.

Here the weights are drawn as `torch.nn.LSTM` and `torch.nn.Linear` draw theirs, so that the example runs without
PyTorch. With it, write ``weights = {**lstm.state_dict(), **linear.state_dict()}``.
"""

import numpy as np

import nbflow as nf
from nbflow import plot

task = nf.load_task("temporal_order")
H, rng = 32, np.random.default_rng(0)
shapes = {
    "weight_ih_l0": (4 * H, task.n_in),
    "weight_hh_l0": (4 * H, H),
    "bias_ih_l0": (4 * H,),
    "bias_hh_l0": (4 * H,),
    "weight": (task.n_out, H),
    "bias": (task.n_out,),
}
weights = {name: (rng.uniform(-1, 1, shape) / np.sqrt(H)).astype(np.float32) for name, shape in shapes.items()}

# %%

net, theta = nf.from_torch(weights)
batch = task.sample(seed=0, index=0, batch_size=12, length=40)
seen = nf.trace(net, theta, batch)
print(net, f"median gain {np.nanmedian(seen.gain):.2f}")

with plot.page(
    "An LSTM as PyTorch makes it", "Left: every sequence. Right: the cell state of one", (11, 3.6)
) as figure:
    left, right = figure.subplots(1, 2)
    plot.delta_map(seen, ax=left)
    plot.delta_map(seen, sequence=0, state=1, ax=right)

alternative_text = "Two maps of the gradient by step, bright at the end of the sequences and dark at their beginning"

# %%
# The forget gates are near 1/2, for their biases are near 0: each step back halves the cell state's gradient.
# Starting them with a bias of 1, as ``nf.init(net, "glorot")`` does, is the usual cure.
