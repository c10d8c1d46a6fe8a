"""Gated recurrent unit, the reset gate acting after the product, as in cuDNN and PyTorch (Cho et al. 2014).

n = tanh(a_in_n + r a_rec_n), h = (1 - z) n + z h. Differs from Cho et al. in that r multiplies what comes out of the
product with w_rec, not what goes in; hence the bias of its own.
"""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


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


@unit
def moves(saved, a_in_dot, a_rec_dot):
    """Return by how much r, z and n move."""
    r, z, n, recurrent = saved
    r_dot = scalars.sigmoid_slope(r) * (a_in_dot[0] + a_rec_dot[0])
    z_dot = scalars.sigmoid_slope(z) * (a_in_dot[1] + a_rec_dot[1])
    n_dot = scalars.tanh_slope(n) * (a_in_dot[2] + r_dot * recurrent + r * a_rec_dot[2])
    return r_dot, z_dot, n_dot


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    _, z, n, _ = saved
    _, z_dot, n_dot = moves(saved, a_in_dot, a_rec_dot)
    return ((ONE - z) * n_dot + z_dot * (s[0] - n) + z * s_dot[0],)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    """Differentiate every product of `step_vjp`; the slope of r (1 - r) is 1 - 2 r, that of 1 - n^2 is -2 n."""
    r, z, n, recurrent = saved
    r_dot, z_dot, n_dot = moves(saved, a_in_dot, a_rec_dot)
    r_slope, z_slope, n_slope = scalars.sigmoid_slope(r), scalars.sigmoid_slope(z), scalars.tanh_slope(n)
    e_n = d[0] * (ONE - z) * n_slope
    e_n_dot = (d_dot[0] * (ONE - z) - d[0] * z_dot) * n_slope - TWO * d[0] * (ONE - z) * n * n_dot
    e_r_dot = (e_n_dot * recurrent + e_n * a_rec_dot[2]) * r_slope + e_n * recurrent * (ONE - TWO * r) * r_dot
    e_z_dot = (d_dot[0] * (s[0] - n) + d[0] * (s_dot[0] - n_dot)) * z_slope
    e_z_dot += d[0] * (s[0] - n) * (ONE - TWO * z) * z_dot
    e_rec_dot = (e_r_dot, e_z_dot, e_n_dot * r + e_n * r_dot)
    return (e_r_dot, e_z_dot, e_n_dot), e_rec_dot, (d_dot[0] * z + d[0] * z_dot,)


CELL = Cell(
    gates=("r", "z", "n"),
    states=("h",),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    saved=("r", "z", "n", "a_rec n"),
    additive=False,
    carries=True,
    bias_rec=True,
    ranges=((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)),
)
