"""Gated recurrent unit, the reset gate acting after the product, as in cuDNN and PyTorch (Cho et al. 2014).

n = tanh(a_in_n + r a_rec_n), h = (1 - z) n + z h. Differs from Cho et al. in that r multiplies what comes out of the
product with w_rec, not what goes in; hence the bias of its own.
"""

from nbflow import scalars
from nbflow._compile import ONE, unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s):
    r, z = scalars.sigmoid(a_in[0] + a_rec[0]), scalars.sigmoid(a_in[1] + a_rec[1])
    n = scalars.tanh(a_in[2] + r * a_rec[2])
    return ((ONE - z) * n + z * s[0],), (r, z, n, a_rec[2])


@unit
def step_vjp(saved, s, s_next, d):
    r, z, n, recurrent = saved
    e_n = d[0] * (ONE - z) * scalars.tanh_slope(n)
    e_r = e_n * recurrent * scalars.sigmoid_slope(r)
    e_z = d[0] * (s[0] - n) * scalars.sigmoid_slope(z)
    return (e_r, e_z, e_n), (e_r, e_z, e_n * r), (d[0] * z,)


CELL = Cell(
    gates=("r", "z", "n"),
    states=("h",),
    step=step,
    step_vjp=step_vjp,
    saved=("r", "z", "n", "a_rec n"),
    additive=False,
    carries=True,
    bias_rec=True,
)
