"""Minimal gated unit: one gate forgets and resets (Zhou, Wu, Zhang, Zhou 2016, eq. 6).

u = sigmoid(a_in_u + a_rec_u), n = tanh(a_in_n + u a_rec_n), h' = (1 - u) h + u n. u is their f: here the gate f of a
cell is the one that keeps. Differs from Zhou et al. in that u multiplies what comes out of the product with w_rec, not
what goes in, as the reset of `gru` does here and in cuDNN.
"""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


@unit
def step(a_in, a_rec, s):
    u = scalars.sigmoid(a_in[0] + a_rec[0])
    n = scalars.tanh(a_in[1] + u * a_rec[1])
    return ((ONE - u) * s[0] + u * n,), (u, n, a_rec[1])


@unit
def step_vjp(saved, s, s_next, d):
    u, n, recurrent = saved
    e_n = d[0] * u * scalars.tanh_slope(n)
    e_u = (d[0] * (n - s[0]) + e_n * recurrent) * scalars.sigmoid_slope(u)
    return (e_u, e_n), (e_u, e_n * u), (d[0] * (ONE - u),)


@unit
def moves(saved, a_in_dot, a_rec_dot):
    """Return by how much u and n move."""
    u, n, recurrent = saved
    u_dot = scalars.sigmoid_slope(u) * (a_in_dot[0] + a_rec_dot[0])
    return u_dot, scalars.tanh_slope(n) * (a_in_dot[1] + u_dot * recurrent + u * a_rec_dot[1])


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    u, n, _ = saved
    u_dot, n_dot = moves(saved, a_in_dot, a_rec_dot)
    return ((ONE - u) * s_dot[0] + u_dot * (n - s[0]) + u * n_dot,)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    """Differentiate every product of `step_vjp`; the slope of u (1 - u) is 1 - 2 u, that of 1 - n^2 is -2 n."""
    u, n, recurrent = saved
    u_dot, n_dot = moves(saved, a_in_dot, a_rec_dot)
    u_slope, n_slope = scalars.sigmoid_slope(u), scalars.tanh_slope(n)
    e_n = d[0] * u * n_slope
    e_n_dot = (d_dot[0] * u + d[0] * u_dot) * n_slope - TWO * d[0] * u * n * n_dot
    at_u = d[0] * (n - s[0]) + e_n * recurrent
    at_u_dot = d_dot[0] * (n - s[0]) + d[0] * (n_dot - s_dot[0]) + e_n_dot * recurrent + e_n * a_rec_dot[1]
    e_u_dot = at_u_dot * u_slope + at_u * (ONE - TWO * u) * u_dot
    return (e_u_dot, e_n_dot), (e_u_dot, e_n_dot * u + e_n * u_dot), (d_dot[0] * (ONE - u) - d[0] * u_dot,)


CELL = Cell(
    gates=("u", "n"),
    states=("h",),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    saved=("u", "n", "a_rec n"),
    additive=False,
    carries=True,
    ranges=((0.0, 1.0), (-1.0, 1.0)),
)
