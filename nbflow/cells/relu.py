"""h = max(a_in + a_rec, 0), with slope 0 at 0."""

from nbflow import scalars
from nbflow._compile import unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    return (scalars.relu(a_in[0] + a_rec[0]),), ()


@unit
def step_vjp(saved, s, s_next, d):
    e = (d[0] * scalars.relu_slope(s_next[0]),)
    return e, e, ()


CELL = Cell(gates=("a",), states=("h",), step=step, step_vjp=step_vjp)
