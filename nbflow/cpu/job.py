"""The record that a kernel is given: sizes, flags, and the addresses of arrays and of other kernels.

One `Job` stands for one shard, `rows` sequences of one replica, or for a replica as a whole. All arrays behind its
addresses are C-ordered and in the dtype of the network unless said otherwise; W is the vector length, `width` is H and
`out_width` is M, each rounded up to a multiple of W, and what lies in the rounding adds nothing: its gradient is 0.

====================  ==================================  ==========================================================
field                 shape                               what
====================  ==================================  ==========================================================
inputs                (T, B, N) or int32 (T, B)           the caller's inputs, from this shard's first sequence on
targets               (T, B, M) or int32 (T, B)           the caller's targets, likewise
weights               (T, B)                              the caller's weights, likewise
p_in                  panels of (N+1, G*width)            w_in, and bias as its last row (tokens: plain rows)
p_rec, p_rec_back     panels of (H, G*width), G (H,width) w_rec, and each gate of it transposed
p_bias_rec            (G, width)                          bias_rec
p_out, p_out_back     panels of (H, out_width), (M,width) w_out, and transposed
p_b_out               (out_width,)                        b_out
x                     (T, rows, N+1)                      inputs and a column of ones (not for tokens)
pre, rec              (T, rows, G, width)                 a_in and a_rec; overwritten by their gradients
states                (T+1, rows, S, width)               s_t
saved                 (T, rows, K, width)                 what the cell keeps for its backward pass
delta                 (slots, rows, S, width)             delta_t in slot t % slots; slots = 2, or T+1 to keep all
v                     (T, rows, width)                    the h-line of v_t, for an immediate derivative of Omega;
                      (T, rows, S, width)                 v_t, then w_t, for the others (`nbflow.cpu.tangent`)
delta_norm            (T+1, rows)                         ||delta_t||
v_norm                (T, rows)                           ||v_t||, t = 1..T
flow_slope            (T, rows)                           2 penalty'(q) / ||delta||, 0 where not counted
carry                 (rows, 2)                           of the step after: slope of its state penalty, ||h||
y                     (T, rows, out_width)                outputs, overwritten by dL/dy, at steps with weight
active                int64 (T,)                          1 where any sequence has weight
last, heard           int64 (rows,)                       steps that a sequence takes; its last step with weight
d_in                  (N+1, G, width)                     partial gradients of this shard: w_in, then bias
d_rec, d_flow         (H, G, width)                       likewise w_rec, from the loss and from Omega
d_bias_rec            (G, width)
d_out                 (H, out_width)
d_b_out               (out_width,)
end                   (rows, S, width)                    the state after all steps, if the job is `whole`
seed                  (rows, S, width)                    delta_T from outside, if the job is `seeded`
states_dot            (T+1, rows, S, width)               u_t, tangents of the states
entering              (T, rows, S, width)                 w_t, as the next step sees them: `v` or `states_dot`
pre_dot, rec_dot      (T, rows, G, width)                 tangents of a_in and a_rec, then those of their gradients
y_dot                 (T, rows, out_width)                tangents of y, then those of dL/dy
y_again               (rows, out_width)                   y of one step
delta_dot             (2, rows, S, width)                 the tangent of delta_t in slot t % 2
q_in .. q_b_out       like p_in .. p_b_out                a direction of the parameters, if the job is `directed`
flow_weight           -                                   alpha over what Omega is divided by
derivative            -                                   of Omega (`DERIVATIVES`); 0 without a flow
panel                 (CHUNK, panel)                      room for a panel of `pre` whose rows collide in a cache
reach                 -                                   steps that the shard takes, found by the forward pass
phase_0 .. phase_4    -                                   kernels to run in this order; 0 ends the list
late                  -                                   the kernel to run once all shards have run their phases
shortest, quiet       -                                   the least `last`, the least `heard`
segment               -                                   steps of a segment of the way back
every, checkpoints    (T/every + 1, rows, S, width)       steps between checkpoints; the states there
hidden_site           -                                   what is clipped inside BPTT (`nbflow.cpu.hidden_clip`)
detach_seed, _index   -                                   which draws of `nbflow.cpu.h_detach`
replica               -                                   which of the R it belongs to
detach                -                                   the probability of its draws, 0 for none
group_rows            -                                   sequences that are clipped together; 0 for none
group                 (group_size,)                       room for one group's gradient, laid out like d_in .. d_b_out
group_norms           (rows,)                             norms of the groups' gradients
sums                  (3,)                                loss, sum of penalties, count of penalties
theta, d_theta        (P,)                                parameters of the replica, and where its gradient goes
direction             (P,)                                a direction of the parameters
report                (3,)                                loss, Omega, count of the replica
shards                `Job` (shard_count,)                the shards of a replica
pieces                -                                   pieces that packing and summing are cut into
====================  ==================================  ==========================================================
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

SIZES = ("steps", "batch", "rows", "n_in", "gates", "hidden", "width", "lines", "kept", "n_out", "out_width", "slots",
         "reach", "shortest", "quiet", "segment", "every", "group_rows", "group_size", "replica")  # fmt: skip
PHASES = ("phase_0", "phase_1", "phase_2", "phase_3", "phase_4", "late")
FLAGS = ("tokens", "classes", "additive", "carries", "bias_rec", "whole", "seeded", "tracing", "measured", "derivative",
         "mean_flow", "directed", "hidden_site", "hidden_norm", "detach_seed", "detach_index")  # fmt: skip
KERNELS = ("product", "step", "step_vjp", "step_jvp", "step_vjp_jvp", "loss", "loss_jvp", "penalty", "state_penalty")
BORROWED = ("inputs", "targets", "weights")
PACKED = ("p_in", "p_rec", "p_rec_back", "p_bias_rec", "p_out", "p_out_back", "p_b_out")
DIRECTION = ("q_in", "q_rec", "q_rec_back", "q_bias_rec", "q_out", "q_out_back", "q_b_out")
TAPE = ("x", "pre", "rec", "states", "saved", "delta", "v", "delta_norm", "v_norm", "flow_slope", "y", "active",
        "last", "heard", "end", "seed", "carry", "checkpoints", "group_norms", "states_dot", "pre_dot", "rec_dot",
        "y_dot", "y_again", "delta_dot", "panel")  # fmt: skip
GROUPED = ("d_in", "d_rec", "d_bias_rec", "d_out", "d_b_out")
PARTIAL = (*GROUPED, "d_flow", "sums", "group")
REPLICA = ("theta", "d_theta", "direction", "report", "shards", "shard_count", "pieces")
# Values of the job's `derivative`, by the name of a Flow's.
DERIVATIVES = {"immediate": 1, "detached": 2, "exact": 3}
IMMEDIATE, DETACHED, EXACT = DERIVATIVES.values()
REALS = ("alpha", "bound", "flow_weight", "group_scale", "group_threshold", "hidden_threshold", "detach")


@functools.cache
def job_dtype(dtype: Any) -> Any:
    """Return the dtype of the record: integers, then the numbers of `REALS` in the dtype of the network."""
    names = SIZES + PHASES + FLAGS + KERNELS + BORROWED + PACKED + DIRECTION + TAPE + ("entering",) + PARTIAL + REPLICA
    return np.dtype([(name, np.int64) for name in names] + [(name, dtype) for name in REALS], align=True)
