"""Omega of a shard and its immediate derivative (Pascanu, Mikolov, Bengio 2013, eq. 9-10).

With e_t the gradient at a_rec and v_t = J_t^T delta_t, all constant but the explicit w_rec in J_t:

    dOmega/dw_rec = sum_{t,b} 2 penalty'(q) / ||delta||^2 * outer(v, e),      q = ||v||^2 / ||delta||^2
"""

from __future__ import annotations

import functools

from nbflow._compile import TWO, exact_part, kernel, part
from nbflow.cpu.memory import address_of, clear
from nbflow.cpu.product import outer
from nbflow.cpu.rules import counts, squared_gain
from nbflow.cpu.views import at, place, row, shards, whole


@functools.cache
def build_penalty(penalty, dtype):
    """Build the kernel that adds the penalties of one step and finds the factor of each outer product."""
    value, slope = penalty.value, penalty.slope
    shard_at = shards(dtype)

    @kernel(value, slope, dtype)
    def penalties(address, t):
        shard = shard_at(address)
        delta_norm, v_norm = at(shard, "delta_norm", t + 1), at(shard, "v_norm", t)
        flow_slope, sums = at(shard, "flow_slope", t), whole(shard, "sums")
        for b in range(shard.rows):
            delta = delta_norm[b]
            if not counts(delta, shard.bound):
                flow_slope[b] = 0
                continue
            q = squared_gain(v_norm[b], delta)
            sums[1] += value(q)
            sums[2] += 1
            flow_slope[b] = TWO * slope(q) / delta

    return penalties


@exact_part
def scale_v(shard, start, stop):
    """v *= flow_slope / ||delta||, and 0 where nothing is counted: v itself may have overflowed there.

    The two factors one after the other, as written: their product may overflow where v is small.
    """
    for t in range(start, stop):
        norms, factors = at(shard, "delta_norm", t + 1), at(shard, "flow_slope", t)
        for b in range(shard.rows):
            v, norm, factor = row(shard, "v", t, b), norms[b], factors[b]
            if factor == 0:
                clear(v)
            else:
                for j in range(v.size):
                    v[j] = (v[j] / norm) * factor


@part
def flow_weights(shard, start, stop, add):
    """d_flow (+)= the outer products of the steps start .. stop-1."""
    scale_v(shard, start, stop)
    outer(
        shard, address_of(whole(shard, "d_flow")), place(shard, "v", start, 0), shard.width,
        place(shard, "rec", start, 0), shard.columns, shard.hidden, (stop - start) * shard.rows, shard.columns, add,
    )  # fmt: skip
