"""The records that kernels are given: each of their fields is declared here, once.

A kernel takes the address of a record: a `Shard` is a few sequences of one replica, a `Replica` one network with its
batch. A record holds integers (sizes, flags, addresses of kernels), numbers in the dtype of the network, and addresses
of arrays. From what stands here come the records (`shard_dtype`, `replica_dtype`), all memory and what is gathered from
it (`nbflow.cpu.buffers`), the views of the kernels, their checks and the slides of the tape (`nbflow.cpu.views`).

Arrays are C-ordered. A shape names integers of the same record, the outermost axis first:

- "n_in+1" is one more, and "2" is 2;
- "rows|batch" are `rows` of the `batch` items that lie there: the arrays of the caller hold all sequences;
- "%slots" is a ring, whose item t lies in slot t % slots.

Widths are sizes rounded up to whole vectors. What lies in the rounding adds nothing: its gradient is 0. Parameters and
gradients stand in blocks, which have two copies; the first index of their arrays says which.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

# Copies of the packed parameters, and of a shard's gradients.
PARAMETERS, DIRECTION = 0, 1
TOTAL, GROUP = 0, 1
# Values of `derivative`, by the name of a Flow's.
DERIVATIVES = {"immediate": 1, "detached": 2, "exact": 3}
IMMEDIATE, DETACHED, EXACT = DERIVATIVES.values()


class Axis(NamedTuple):
    """An axis of an array: `size` + `more` items, of `of` that lie there; a ring's index is taken modulo `size`."""

    size: str
    more: int
    of: str
    ring: bool


class Array:
    """An array behind an address, which exists where all `words` of `when` hold (`CONDITIONS`).

    `dtype` is None for that of the network, "shard" for the record of a shard; `block` is "packed" or "partial" for
    part of one; `by_rows` says whether the size is a multiple of the shard's rows.
    """

    def __init__(self, shape: str, what: str, when: str = "", dtype: Any = None, block: str = "") -> None:
        self.what, self.dtype, self.block = what, dtype, block
        self.axes, self.words = tuple(_axis(text) for text in shape.split()), tuple(when.split())
        self.by_rows = any(axis.of == "rows" for axis in self.axes)


def _axis(text: str) -> Axis:
    size, _, of = text.lstrip("%").partition("|")
    size, _, more = size.partition("+")
    return Axis(size, int(more or 0), of or size, text.startswith("%"))


CONDITIONS = {
    "dense": "the inputs are vectors",
    "tokens": "the inputs are tokens",
    "values": "the targets are numbers",
    "classes": "the targets are classes",
    "apart": "the cell is not additive: a_in and a_rec stand in two arrays",
    "bias_rec": "a_rec has a bias of its own",
    "flow": "Omega is asked for",
    "immediate": "and its immediate derivative",
    "measured": "norms of delta_t and v_t are asked for",
    "recomputing": "the tape holds the steps between two states that are kept",
    "second": "there is a tangent",
    "moving": "the tangents of states are handed on from step to step",
    "colliding": "rows of a weight gradient are copied before they are multiplied",
    "at_inputs": "the gradient at the inputs is asked for",
    "inputs_move": "there is a tangent of the inputs",
    "listened": "the states of all steps count from outside",
    "below": "another layer stands above",
    "masked": "some parameters are held, and groups of sequences clipped",
    "joint": "the norm of a group is that of several layers together",
}

# ------------------------------------------------------------------------- integers

SIZES = {
    "number": "bytes of a number of the network's dtype",
    "batch": "B, sequences of the whole batch",
    **{"n_in": "N", "gates": "G", "hidden": "H", "n_out": "M"},
    "width": "H, rounded up to whole vectors",
    "out_width": "M, rounded up to whole vectors",
    "gate_panels": "gates * width, rounded up to whole panels of the matrix product",
    "width_panels": "width, likewise",
    "out_panels": "out_width, likewise",
    "in_width": "N, rounded up to whole vectors",
    "in_panels": "in_width, rounded up to whole panels",
    "packed_size": "numbers of one copy of the packed parameters",
    "takes_tokens": "1 where inputs are tokens",
    "bias_rec": "1 where a_rec has a bias of its own",
    "directed": "1 where a direction of the parameters is given",
    "inputs_move": "1 where a direction of the inputs is given",
    "derivative": "of Omega, one of `DERIVATIVES`; 0 without a flow",
}
SHARD_SIZES = {
    "steps": "T",
    "stretch": "steps whose gradients at the inputs are computed together",
    "held": "steps that the tape holds: T, or those between two states that are kept",
    "rows": "sequences of this shard",
    "sequence": "the number in the batch of the first of them",
    "lines": "S",
    "kept": "K, numbers that the cell keeps for its way back",
    "knobs": "settings of the cell",
    "columns": "gates * width",
    "line": "lines * width",
    "slots": "how many delta_t are kept: 2, or T+1 for all",
    "v_lines": "lines that are kept of v_t: that of h for an immediate derivative of Omega, else all",
    "marks": "states that are kept, to compute the tape between them anew",
    "chunk": "rows of a panel of the matrix product",
    "panel_width": "columns of one",
    "colliding": "1 where rows of `pre` are copied before they are multiplied",
    "left_rows": "columns of the left factor that are copied at a time; 0 where it is read as it lies",
    "partial_size": "numbers of one copy of the gradients",
    "segment": "steps of a segment of the way back",
    "every": "steps between two of them; 0 where the whole tape is there",
    "group_rows": "sequences that are clipped together; 0 for none",
    "reach": "steps that the shard takes: the largest `length`; found by the forward pass, as the next two",
    "shortest": "the smallest `length`",
    "silent_after": "the smallest `last_weight`: up to this step every sequence has weight to come",
}
SHARD_FLAGS = {
    **dict.fromkeys(("additive", "carries"), "1 where the cell is or does so"),
    "whole": "1 where every sequence takes all steps, also those after its last weight",
    "tracing": "1 where states are looked at after the way back",
    "measured": "1 where `delta_norm` and `v_norm` are written",
    "below": "1 where another layer stands above: h of every step is handed on, and what comes back to it is added",
    "ends_given": "1 where the way back begins with `end_cotangent`, else 0",
    "hidden_site": "what is clipped inside BPTT (`nbflow.cpu.hidden_clip`); 0 for nothing",
    "hidden_norm": "1 where that is clipped by its norm, 0 by value",
    "hidden_seen": "how many entries, or vectors, of a step of a sequence that clip sees",
    "group_skips": "1 where a group whose gradient is not finite is left out",
    "masked": "1 where `still` says which parameters are held",
    **dict.fromkeys(("replica", "detach_seed", "detach_index"), "which draws decide in `nbflow.cpu.h_detach`"),
    **dict.fromkeys(("noise_purpose", "noise_seed", "noise_index"), "which draws `nbflow.cpu.noise` adds"),
    "noise_first": "the first block of draws of a step that is this layer's",
    "noise_blocks": "blocks of draws of a step, of all layers",
}
KERNELS = {
    **{f"phase_{k}": "kernels to run in this order; 0 ends the list" for k in range(5)},
    "late": "the kernel to run once all shards have run their phases",
    "later": "the kernel to run after it; 0 for none",
    "product": "the matrix product",
    "noise": "what adds noise to a_in of one step; 0 for none",
    **dict.fromkeys(("step", "step_vjp", "step_jvp", "step_vjp_jvp"), "pointwise passes of the cell, of one step each"),
    **dict.fromkeys(("loss", "loss_jvp"), "loss and dL/dy of one step, and the tangent of dL/dy"),
    **dict.fromkeys(("penalty", "state_penalty"), "of the gain or of states, of one step; 0 for none of states"),
}
REPLICA_SIZES = {
    "parameters": "P",
    "shard_count": "its shards",
    "pieces": "what packing and summing are cut into",
    "mean_flow": "1 where Omega is divided by how many (t, b) it counts, 0 by B",
}

# ------------------------------------------------------------------------- numbers

REALS = {"alpha": "weight of Omega"}
SHARD_REALS = {
    "bound": "Omega counts where ||delta_t||^2 is not below it",
    "flow_weight": "alpha over what Omega is divided by",
    "group_scale": "B / group_rows, by which a group's share of the gradient is multiplied",
    "group_threshold": "above which norm a group is clipped",
    "hidden_threshold": "of the clip inside BPTT",
    "detach": "the probability that h is detached at a step; 0 for never",
    "deviation": "of the noise that is added to a_in",
}

# ------------------------------------------------------------------------- arrays

BORROWED = {
    "inputs": Array("steps rows|batch n_in", "the caller's, from this shard's first sequence on", "dense"),
    "tokens": Array("steps rows|batch", "likewise, where inputs are tokens", "tokens", np.int32),
    "targets": Array("steps rows|batch n_out", "likewise", "values"),
    "classes": Array("steps rows|batch", "likewise, where targets are classes", "classes", np.int32),
    "weights": Array("steps rows|batch", "likewise"),
    "d_inputs": Array("steps rows|batch n_in", "where dL/dx_t goes, likewise", "at_inputs"),
    "handed": Array("steps rows|batch hidden", "where h_t goes, likewise: the inputs of the layer above", "below"),
    "returned": Array("steps rows|batch hidden", "what comes back to h_t from there: its `d_inputs`", "below"),
    "joint": Array(
        "rows|batch 3", "at the first row of a group, its norm over layers: root, scale, 1 if finite", "joint"
    ),
}
PACKED = {
    "p_in": Array("n_in+1 gate_panels", "panels of w_in, and bias as its last row", "dense"),
    "p_rows": Array("n_in+1 gates width", "the same as plain rows, to be looked up", "tokens"),
    "p_rec": Array("hidden gate_panels", "panels of w_rec"),
    "p_rec_back": Array("gates hidden width_panels", "panels of each gate of it, transposed"),
    "p_bias_rec": Array("gates width", "bias_rec", "bias_rec"),
    "p_out": Array("hidden out_panels", "panels of w_out"),
    "p_out_back": Array("n_out width_panels", "panels of it, transposed"),
    "p_b_out": Array("out_width", "b_out"),
}
TAPE = {
    "x": Array("held rows n_in+1", "inputs, and a column of ones", "dense"),
    "pre": Array("held rows gates width", "a_in, overwritten by its gradient"),
    "rec": Array("held rows gates width", "a_rec, likewise; `pre` itself where they are not apart", "apart"),
    "states": Array("held+1 rows lines width", "s_t"),
    "saved": Array("held rows kept width", "what the cell keeps for its way back"),
    "delta": Array("%slots rows lines width", "delta_t"),
    "v": Array("held rows v_lines width", "v_t, its h-line or all; then w_t (`nbflow.cpu.tangent`)", "flow"),
    "delta_norm": Array("held+1 rows", "||delta_t||", "measured"),
    "v_norm": Array("held rows", "||v_t||, t = 1..T", "measured"),
    "flow_slope": Array("held rows", "2 penalty'(q) / ||delta||, 0 where not counted", "flow"),
    "y": Array("held rows out_width", "outputs, overwritten by dL/dy, at steps with weight"),
    "states_dot": Array("held+1 rows lines width", "u_t, tangents of the states", "moving"),
    "pre_dot": Array("held rows gates width", "tangents of a_in, then those of its gradient", "second"),
    "rec_dot": Array("held rows gates width", "of a_rec, likewise; or `pre_dot` itself", "second apart"),
    "y_dot": Array("held rows out_width", "tangents of y, then those of dL/dy", "moving"),
    "active": Array("steps", "1 where any sequence has weight", "", np.int64),
    "length": Array("rows", "steps that a sequence takes", "", np.int64),
    "last_weight": Array("rows", "its last step with weight, 1..T; 0 for none", "", np.int64),
    "end": Array("rows lines width", "the state after all steps, where they are taken as a whole"),
    "end_cotangent": Array("rows lines width", "delta_T from outside, of the last state"),
    "cotangents": Array("held rows lines width", "what counts of s_{t+1}, from outside", "listened"),
    "carry": Array("rows 2", "of the step after: slope of its state penalty, ||h||"),
    "kept_states": Array("marks rows lines width", "states from which the tape is computed anew", "recomputing"),
    "group_norms": Array("rows", "norms of the groups' gradients, NaN of those that are not finite", "", np.float64),
    "still": Array("partial_size", "1 where a parameter is held, in the places of its gradient", "masked", np.uint8),
    "x_dot": Array("held rows n_in+1", "the tangent of the inputs, and a column of zeros", "inputs_move"),
    "w_in_back": Array("columns in_panels", "panels of w_in, transposed", "at_inputs"),
    "d_x": Array("stretch rows in_width", "dL/dx_t of the steps of a stretch", "at_inputs"),
    "y_again": Array("rows out_width", "y of one step", "moving"),
    "delta_dot": Array("%2 rows lines width", "the tangent of delta_t", "second"),
    "panel": Array("chunk panel_width", "room for a panel of `pre`", "colliding"),
    "left": Array("left_rows chunk", "room for columns of the left factor, each as a row", "colliding"),
    "d_flow": Array("hidden gates width", "gradient of Omega with respect to w_rec", "immediate"),
    "settings": Array("1 knobs width", "the settings of the cell, for each unit"),
    "sums": Array("5", "loss, sum of penalties, count of penalties, groups left out, groups clipped"),
    "inside": Array("2", "what the clip inside BPTT clipped, and all that it saw", "", np.int64),
}
PARTIAL = {
    "d_in": Array("n_in+1 gates width", "of w_in, and bias as the last row"),
    "d_rec": Array("hidden gates width", "of w_rec, from the loss"),
    "d_bias_rec": Array("gates width", "of bias_rec", "bias_rec"),
    "d_out": Array("hidden out_width", "of w_out"),
    "d_b_out": Array("out_width", "of b_out"),
}
SHARED = {
    "partial": Array("partial_size", "gradients of this shard or of one group: `d_in` and the others", block="partial"),
    "entering": Array("held rows lines width", "w_t, as the next step sees them: `v` or `states_dot`", "second"),
}
OF_REPLICA = {
    "theta": Array("parameters", "parameters"),
    "d_theta": Array("parameters", "where the gradient goes; address 0 for nowhere"),
    "direction": Array("parameters", "a direction of the parameters"),
    "report": Array("6", "as `nbflow.cpu.report.GRADIENT` names it"),
    "shards": Array("shard_count", "the records of its shards", "", "shard"),
}
BLOCKS = {"packed": PACKED, "partial": PARTIAL}
for _block, _arrays in BLOCKS.items():
    for _array in _arrays.values():
        _array.block = _block
ARRAYS = BORROWED | PACKED | TAPE | PARTIAL | SHARED | OF_REPLICA
SHARD = SIZES | SHARD_SIZES | SHARD_FLAGS | KERNELS | BORROWED | PACKED | TAPE | PARTIAL | SHARED
REPLICA = SIZES | REPLICA_SIZES | PACKED | OF_REPLICA


@functools.cache
def shard_dtype(dtype: Any) -> Any:
    """Return the dtype of the record of a shard."""
    return _record(SHARD, REALS | SHARD_REALS, dtype)


@functools.cache
def replica_dtype(dtype: Any) -> Any:
    """Return the dtype of the record of a replica."""
    return _record(REPLICA, REALS, dtype)


def dtype_of(name: str, dtype: Any) -> Any:
    """Return the dtype of an array of a network of `dtype`."""
    own = ARRAYS[name].dtype
    return shard_dtype(np.dtype(dtype)) if isinstance(own, str) else own or dtype


def _record(integers: Any, reals: Any, dtype: Any) -> Any:
    return np.dtype([(name, np.int64) for name in integers] + [(name, dtype) for name in reals], align=True)
