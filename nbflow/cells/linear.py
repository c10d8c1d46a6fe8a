"""h = a_in + a_rec: the linear network in which gradients can be followed by hand (Goodfellow et al. 2016, 10.7)."""

from nbflow._compile import unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


@unit
def step_vjp(saved, s, s_next, d):
    return (d[0],), (d[0],), ()


CELL = Cell(gates=("a",), states=("h",), step=step, step_vjp=step_vjp)
