"""Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Goodfellow et al. 2016, eq. 10.40-10.44).

c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c). Gates in PyTorch's order, i f g o.
"""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


@unit
def step(a_in, a_rec, s):
    i, f = scalars.sigmoid(a_in[0] + a_rec[0]), scalars.sigmoid(a_in[1] + a_rec[1])
    g, o = scalars.tanh(a_in[2] + a_rec[2]), scalars.sigmoid(a_in[3] + a_rec[3])
    c = f * s[1] + i * g
    squashed = scalars.tanh(c)
    return (o * squashed, c), (i, f, g, o, squashed)


@unit
def step_vjp(saved, s, s_next, d):
    i, f, g, o, squashed = saved
    d_c = d[1] + d[0] * o * scalars.tanh_slope(squashed)
    e = (
        d_c * g * scalars.sigmoid_slope(i),
        d_c * s[1] * scalars.sigmoid_slope(f),
        d_c * i * scalars.tanh_slope(g),
        d[0] * squashed * scalars.sigmoid_slope(o),
    )
    return e, e, (d_c - d_c, d_c * f)


@unit
def moves(saved, s, a_in_dot, a_rec_dot, s_dot):
    """Return by how much i, f, g, o and tanh c move, and c itself."""
    i, f, g, o, squashed = saved
    i_dot = scalars.sigmoid_slope(i) * (a_in_dot[0] + a_rec_dot[0])
    f_dot = scalars.sigmoid_slope(f) * (a_in_dot[1] + a_rec_dot[1])
    g_dot = scalars.tanh_slope(g) * (a_in_dot[2] + a_rec_dot[2])
    o_dot = scalars.sigmoid_slope(o) * (a_in_dot[3] + a_rec_dot[3])
    c_dot = f_dot * s[1] + f * s_dot[1] + i_dot * g + i * g_dot
    return i_dot, f_dot, g_dot, o_dot, scalars.tanh_slope(squashed) * c_dot, c_dot


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    _, _, _, o_dot, squashed_dot, c_dot = moves(saved, s, a_in_dot, a_rec_dot, s_dot)
    return o_dot * saved[4] + saved[3] * squashed_dot, c_dot


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot):
    """Differentiate every product of `step_vjp`; the slope of i (1 - i) is 1 - 2 i, that of 1 - g^2 is -2 g."""
    i, f, g, o, squashed = saved
    i_dot, f_dot, g_dot, o_dot, squashed_dot, _ = moves(saved, s, a_in_dot, a_rec_dot, s_dot)
    i_slope, f_slope, o_slope = scalars.sigmoid_slope(i), scalars.sigmoid_slope(f), scalars.sigmoid_slope(o)
    g_slope, c_slope = scalars.tanh_slope(g), scalars.tanh_slope(squashed)
    d_c = d[1] + d[0] * o * c_slope
    d_c_dot = d_dot[1] + (d_dot[0] * o + d[0] * o_dot) * c_slope - TWO * d[0] * o * squashed * squashed_dot
    e_dot = (
        (d_c_dot * g + d_c * g_dot) * i_slope + d_c * g * (ONE - TWO * i) * i_dot,
        (d_c_dot * s[1] + d_c * s_dot[1]) * f_slope + d_c * s[1] * (ONE - TWO * f) * f_dot,
        (d_c_dot * i + d_c * i_dot) * g_slope - TWO * d_c * i * g * g_dot,
        (d_dot[0] * squashed + d[0] * squashed_dot) * o_slope + d[0] * squashed * (ONE - TWO * o) * o_dot,
    )
    return e_dot, e_dot, (d_c - d_c, d_c_dot * f + d_c * f_dot)


CELL = Cell(
    gates=("i", "f", "g", "o"),
    states=("h", "c"),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    saved=("i", "f", "g", "o", "tanh c"),
    carries=True,
    ranges=((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 1.0)),
)
