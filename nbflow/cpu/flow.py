"""Omega of a shard and its immediate derivative (Pascanu, Mikolov, Bengio 2013, eq. 9-10).

With e_t the gradient at a_rec and v_t = J_t^T delta_t, all constant but the explicit w_rec in J_t:

    dOmega/dw_rec = sum_{t,b} 2 penalty'(q) / ||delta||^2 * outer(v, e),      q = ||v||^2 / ||delta||^2
"""

from __future__ import annotations

import functools

from nbflow._compile import TWO, exact_part, kernel, part
from nbflow.cpu.memory import address_of, clear
from nbflow.cpu.product import outer
from nbflow.cpu.views import at, of, place, row, shards

delta_norm_at, v_norm_at, flow_slope_at, sums_of = at("delta_norm"), at("v_norm"), at("flow_slope"), of("sums")
v_row, v_place, rec_place, d_flow_of = row("v"), place("v"), place("rec"), of("d_flow")


@functools.cache
def build_penalty(penalty, dtype):
    """Build the kernel that adds the penalties of one step and finds the factor of each outer product."""
    value, slope = penalty.value, penalty.slope
    shard_at = shards(dtype)

    @kernel(value, slope, dtype)
    def penalties(address, t):
        shard = shard_at(address)
        delta_norm, v_norm = delta_norm_at(shard, t + 1), v_norm_at(shard, t)
        flow_slope, sums = flow_slope_at(shard, t), sums_of(shard)
        for b in range(shard.rows):
            delta = delta_norm[b]
            # Written so that a NaN counts: a gradient that is not finite must be seen.
            if delta * delta < shard.bound or delta == 0:
                flow_slope[b] = 0
                continue
            q = (v_norm[b] / delta) * (v_norm[b] / delta)
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
        norms, factors = delta_norm_at(shard, t + 1), flow_slope_at(shard, t)
        for b in range(shard.rows):
            v, norm, factor = v_row(shard, t, b), norms[b], factors[b]
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
        shard, address_of(d_flow_of(shard)), v_place(shard, start, 0), shard.width, rec_place(shard, start, 0),
        shard.columns, shard.hidden, (stop - start) * shard.rows, shard.columns, add,
    )  # fmt: skip
