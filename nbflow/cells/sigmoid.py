"""h = sigmoid(a_in + a_rec): the plain recurrent network (Goodfellow et al. 2016, eq. 10.8-10.9)."""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


@unit
def step(a_in, a_rec, s):
    return (scalars.sigmoid(a_in[0] + a_rec[0]),), ()


@unit
def step_vjp(saved, s, s_next, d):
    e = (d[0] * scalars.sigmoid_slope(s_next[0]),)
    return e, e, ()


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    return (scalars.sigmoid_slope(s_next[0]) * (a_in_dot[0] + a_rec_dot[0]),)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    """Use that the slope is h (1 - h), and that of the slope h (1 - h) (1 - 2 h)."""
    bend = (ONE - TWO * s_next[0]) * (a_in_dot[0] + a_rec_dot[0])
    e_dot = (scalars.sigmoid_slope(s_next[0]) * (d_dot[0] + d[0] * bend),)
    return e_dot, e_dot, ()


CELL = Cell(("a",), ("h",), step, step_vjp, step_jvp, step_vjp_jvp, ranges=((0.0, 1.0),))
