"""h = a_in + a_rec: the linear network in which gradients can be followed by hand (Goodfellow et al. 2016, 10.7)."""

import math

from nbflow import unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


@unit
def step_vjp(saved, s, s_next, d):
    return (d[0],), (d[0],), ()


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    return (a_in_dot[0] + a_rec_dot[0],)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    return (d_dot[0],), (d_dot[0],), ()


CELL = Cell(("a",), ("h",), step, step_vjp, step_jvp, step_vjp_jvp, ranges=((-math.inf, math.inf),))
