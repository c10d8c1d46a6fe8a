"""h = tanh(a_in + a_rec): the plain recurrent network (Goodfellow et al. 2016, eq. 10.8-10.9)."""

from nbflow import scalars
from nbflow._compile import unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    return (scalars.tanh(a_in[0] + a_rec[0]),), ()


@unit
def step_vjp(saved, s, s_next, d):
    e = (d[0] * scalars.tanh_slope(s_next[0]),)
    return e, e, ()


CELL = Cell(gates=("a",), states=("h",), step=step, step_vjp=step_vjp)
