"""Update gate RNN: tanh units, each with a gate that keeps them (Collins, Sohl-Dickstein, Sussillo 2017, eq. 8-10).

g = sigmoid(a_g), c = tanh(a_c), h' = g h + (1 - g) c, of a = a_in + a_rec. Collins et al. add a bias of 1 to a_g.
"""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


@unit
def step(a_in, a_rec, s):
    g, c = scalars.sigmoid(a_in[0] + a_rec[0]), scalars.tanh(a_in[1] + a_rec[1])
    return (g * s[0] + (ONE - g) * c,), (g, c)


@unit
def step_vjp(saved, s, s_next, d):
    g, c = saved
    e = d[0] * (s[0] - c) * scalars.sigmoid_slope(g), d[0] * (ONE - g) * scalars.tanh_slope(c)
    return e, e, (d[0] * g,)


@unit
def moves(saved, a_in_dot, a_rec_dot):
    """Return by how much g and c move."""
    g, c = saved
    return (
        scalars.sigmoid_slope(g) * (a_in_dot[0] + a_rec_dot[0]), scalars.tanh_slope(c) * (a_in_dot[1] + a_rec_dot[1])
    )  # fmt: skip


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    g, c = saved
    g_dot, c_dot = moves(saved, a_in_dot, a_rec_dot)
    return (g * s_dot[0] + g_dot * (s[0] - c) + (ONE - g) * c_dot,)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    """Differentiate every product of `step_vjp`; the slope of g (1 - g) is 1 - 2 g, that of 1 - c^2 is -2 c."""
    g, c = saved
    g_dot, c_dot = moves(saved, a_in_dot, a_rec_dot)
    e_g = (d_dot[0] * (s[0] - c) + d[0] * (s_dot[0] - c_dot)) * scalars.sigmoid_slope(g)
    e_g += d[0] * (s[0] - c) * (ONE - TWO * g) * g_dot
    e_c = (d_dot[0] * (ONE - g) - d[0] * g_dot) * scalars.tanh_slope(c) - TWO * d[0] * (ONE - g) * c * c_dot
    return (e_g, e_c), (e_g, e_c), (d_dot[0] * g + d[0] * g_dot,)


CELL = Cell(
    gates=("g", "c"),
    states=("h",),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    saved=("g", "c"),
    carries=True,
    ranges=((0.0, 1.0), (-1.0, 1.0)),
)
