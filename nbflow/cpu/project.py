"""A projection of parameters by a unit, entry by entry of a block."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exact_loop, exactly


@functools.cache
def build_project(unit, placed, dtype):
    """Build `project(theta, stands, first, rows, gates, columns)`, of a block (rows, gates, columns) at `first`.

    theta (R, P); stands (R,), of the replicas that took no step and stay as they are. A `placed` unit is given the
    place of each entry beside it. Returns how many finite numbers became none.
    """
    unit, greatest = exactly(unit), np.finfo(dtype).max

    @exact_loop("project", unit, placed, dtype)
    def project(theta, stands, first, rows, gates, columns):
        lost = 0
        for r in range(theta.shape[0]):
            if stands[r]:
                continue
            p = first
            for i in range(rows):
                for g in range(gates):
                    for j in range(columns):
                        before = theta[r, p]
                        after = dtype(unit(before, i, g, j)) if placed else dtype(unit(before))
                        lost += abs(before) <= greatest and not abs(after) <= greatest
                        theta[r, p] = after
                        p += 1
        return lost

    return project
