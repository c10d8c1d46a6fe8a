"""Back-propagation through time of a shard: delta_t = dL/ds_t from the last step to the first.

    delta_t = v_{t+1} + (dL/ds_t at step t),      v_t = J_t^T delta_t

(Goodfellow et al. 2016, eq. 10.18-10.19.) The gradients at the pre-activations take the place of the
pre-activations, so that a weight gradient is one matrix product over the whole tape (`nbflow.cpu.weights`).
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.h_detach import build_detached
from nbflow.cpu.hidden_clip import SITES, build_hidden_clip
from nbflow.cpu.job import IMMEDIATE, job_dtype
from nbflow.cpu.lines import build_lines
from nbflow.cpu.memory import call, call_product, clear, view
from nbflow.cpu.norm import build_row_norms
from nbflow.cpu.product import lanes, panel_vectors

PREACTIVATION, STATE = SITES["preactivation"], SITES["state"]


@functools.cache
def build_step_vjp(cell, dtype):
    """Build the kernel of one pointwise pass back: delta_{t+1} to e_t, and to what J carries past a_rec."""
    step_vjp, additive, carries, kept = cell.step_vjp, cell.additive, cell.carries, len(cell.saved)
    gates, states = len(cell.gates), len(cell.states)
    lines = build_lines({"pre": gates, "rec": 0 if additive else gates, "old": states, "new": states, "saved": kept,
                         "delta": states, "before": states if carries else 0})  # fmt: skip
    (_, store_pre), (_, store_rec), (_, store_before) = lines["pre"], lines["rec"], lines["before"]
    load_old, load_new, load_saved, load_delta = (lines[name][0] for name in ("old", "new", "saved", "delta"))
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(step_vjp, additive, carries, kept, dtype)
    def step_vjp_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, width = job.rows, job.width
        block = rows * job.lines * width * size
        pre = view(job.pre + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        rec = view(job.rec + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        old = view(job.states + t * block, (rows, job.lines, width), dtype)
        new = view(job.states + (t + 1) * block, (rows, job.lines, width), dtype)
        saved = view(job.saved + t * rows * kept * width * size, (rows, kept, width), dtype)
        delta = view(job.delta + (t + 1) % job.slots * block, (rows, job.lines, width), dtype)
        before = view(job.delta + t % job.slots * block, (rows, job.lines, width), dtype)
        for b in range(rows):
            for j in range(width):
                d_in, d_rec, d_s = step_vjp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j), load_delta(delta, b, j)
                )
                store_pre(pre, b, j, d_in)
                if not additive:
                    store_rec(rec, b, j, d_rec)
                if carries:
                    store_before(before, b, j, d_s)

    return step_vjp_rows


@functools.cache
def build_products_back(dtype):
    """Build both products of a step back, which write to an address: that of the loss, and that of the recurrence."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def add_loss(job, t, to, y, p_out_back):
        """Add y[t-1] @ w_out^T at `to`, the slot of the state after step t-1."""
        call_product(
            job.product, to, job.lines * job.width, y + (t - 1) * job.rows * job.out_width * size, job.out_width, 1,
            p_out_back, job.n_out * width_of_panel, width_of_panel, job.rows, job.n_out, job.width, 1,
        )  # fmt: skip

    @part
    def recur_back(job, t, to, rec, p_rec_back, add):
        """Write sum_g rec[t-1, g] @ w_rec[g]^T to the h-lines at `to`, or add it."""
        columns = job.gates * job.width
        panel = width_of_panel * job.hidden
        panels = (job.width + width_of_panel - 1) // width_of_panel
        for g in range(job.gates):
            call_product(
                job.product, to, job.lines * job.width,
                rec + ((t - 1) * job.rows * columns + g * job.width) * size, columns, 1,
                p_rec_back + g * panels * panel * size, panel, width_of_panel, job.rows, job.hidden, job.width, add + g,
            )  # fmt: skip

    return add_loss, recur_back


@functools.cache
def build_sweep(dtype):
    """Build `sweep(job, address, start, stop)`: from delta_stop to delta_start, `pre` and `rec` to their gradients."""
    size = np.dtype(dtype).itemsize
    add_loss, recur_back = build_products_back(dtype)

    clip_preactivations, clip_state = build_hidden_clip(dtype)
    row_norms, detached = build_row_norms(dtype), build_detached()

    @part
    def slot(job, t):
        """The address of delta_t."""
        return job.delta + t % job.slots * job.rows * job.lines * job.width * size

    @part
    def silence(job, t):
        """Set all gradients at step t-1 to 0 for sequences that nobody listens to from there on.

        They are 0 already, but for an overflow after the end of a sequence: 0 * Inf is NaN.
        """
        row, columns = job.lines * job.width, job.gates * job.width
        heard = view(job.heard, (job.rows,), np.int64)
        for b in range(job.rows):
            if heard[b] < t:
                place = (t - 1) * job.rows + b
                clear(job.pre + place * columns * size, columns, dtype)
                clear(job.rec + place * columns * size, columns, dtype)
                clear(slot(job, t - 1) + b * row * size, row, dtype)
                if not job.tracing:
                    clear(job.states + (place + job.rows) * row * size, row, dtype)
                    if heard[b] < t - 1:
                        clear(job.states + place * row * size, row, dtype)

    @part
    def write_norms(job, t, to):
        """Write the norm of every row in the slot of delta_t."""
        row = job.lines * job.width
        row_norms(slot(job, t), job.rows, row, to)

    @part
    def keep_v(job, t):
        """Copy v_t, or its h-line, before the loss of step t-1 is added to it."""
        row = job.lines * job.width
        kept = job.width if job.derivative == IMMEDIATE else row
        now = view(slot(job, t - 1), (job.rows, row), dtype)
        v = view(job.v + (t - 1) * job.rows * kept * size, (job.rows, kept), dtype)
        for b in range(job.rows):
            for j in range(kept):
                v[b, j] = now[b, j]

    @part
    def begin(job, stop):
        """delta_stop before the loss of its own step: 0, or what a vector-Jacobian product begins with."""
        count = job.rows * job.lines * job.width
        delta = view(slot(job, stop), (count,), dtype)
        seed = view(job.seed, (count,), dtype)
        for i in range(count):
            delta[i] = seed[i] if job.seeded else dtype(0)

    @part
    def sweep(job, address, start, stop):
        active = view(job.active, (job.steps,), np.int64)
        if stop == job.reach:
            begin(job, stop)
        for t in range(stop, start, -1):
            if active[t - 1]:
                add_loss(job, t, slot(job, t), job.y, job.p_out_back)
            if job.state_penalty:
                call(job.state_penalty, address, t)
            if job.hidden_site == STATE:
                clip_state(job, t)
            if job.measured:
                write_norms(job, t, job.delta_norm + t * job.rows * size)
            call(job.step_vjp, address, t - 1)
            if t > job.quiet:
                silence(job, t)
            if job.hidden_site == PREACTIVATION:
                clip_preactivations(job, t - 1)
            if (t > 1 or job.measured or job.seeded) and not detached(job, t):
                # Into the h-line of v_t, which is where delta_{t-1} begins.
                recur_back(job, t, slot(job, t - 1), job.rec, job.p_rec_back, job.carries)
            if job.measured:
                write_norms(job, t - 1, job.v_norm + (t - 1) * job.rows * size)
            if job.derivative:
                keep_v(job, t)
                call(job.penalty, address, t - 1)
        if job.measured and start == 0:
            write_norms(job, 0, job.delta_norm)

    return sweep


@functools.cache
def build_backward(dtype):
    """Build the phase that sweeps back over all steps of a shard."""
    sweep = build_sweep(dtype)
    record = job_dtype(dtype)

    @kernel(dtype)
    def backward(address, _):
        job = view(address, (1,), record)[0]
        sweep(job, address, 0, job.reach)

    return backward
