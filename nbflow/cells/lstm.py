"""Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Goodfellow et al. 2016, eq. 10.40-10.44).

c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c). Gates in PyTorch's order, i f g o.
"""

from nbflow import scalars
from nbflow._compile import unit
from nbflow.records import Cell


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


CELL = Cell(
    gates=("i", "f", "g", "o"),
    states=("h", "c"),
    step=step,
    step_vjp=step_vjp,
    saved=("i", "f", "g", "o", "tanh c"),
    carries=True,
)
