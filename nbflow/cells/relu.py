"""h = max(a_in + a_rec, 0), with slope 0 at 0."""

import math

from nbflow import scalars, unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    return (scalars.relu(a_in[0] + a_rec[0]),), ()


@unit
def step_vjp(saved, s, s_next, d):
    e = (d[0] * scalars.relu_slope(s_next[0]),)
    return e, e, ()


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    return (scalars.relu_slope(s_next[0]) * (a_in_dot[0] + a_rec_dot[0]),)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    e_dot = (scalars.relu_slope(s_next[0]) * d_dot[0],)
    return e_dot, e_dot, ()


CELL = Cell(("a",), ("h",), step, step_vjp, step_jvp, step_vjp_jvp, ranges=((0.0, math.inf),))
