"""h' = (1 - rate) h + rate tanh(a_in + a_rec): leaky units (Jaeger et al. 2007; Mozer 1992; Goodfellow et al. 10.9.2).

`rate`, 0 to 1, is the part of a unit that is renewed at every step: 1 / rate is its time constant in steps, dt / tau of
the rate equation tau dh/dt = -h + tanh(a) in steps of dt (Euler). One number, or one for each unit; it is not trained.
At rate 1 this is `tanh`. What a step carries past w_rec is 1 - rate: the gradient decays no faster than by that.
"""

from nbflow import scalars, unit
from nbflow.records import Cell
from nbflow.scalars import ONE, TWO


@unit
def step(a_in, a_rec, s, settings):
    rate, a = settings[0], scalars.tanh(a_in[0] + a_rec[0])
    return ((ONE - rate) * s[0] + rate * a,), (a,)


@unit
def step_vjp(saved, s, s_next, d, settings):
    rate = settings[0]
    e = (d[0] * rate * scalars.tanh_slope(saved[0]),)
    return e, e, (d[0] * (ONE - rate),)


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot, settings):
    rate = settings[0]
    return ((ONE - rate) * s_dot[0] + rate * scalars.tanh_slope(saved[0]) * (a_in_dot[0] + a_rec_dot[0]),)


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot, settings):
    """Use that the slope of 1 - tanh^2 is -2 tanh (1 - tanh^2)."""
    rate = settings[0]
    bend = TWO * saved[0] * (a_in_dot[0] + a_rec_dot[0])
    e_dot = (rate * scalars.tanh_slope(saved[0]) * (d_dot[0] - d[0] * bend),)
    return e_dot, e_dot, (d_dot[0] * (ONE - rate),)


CELL = Cell(
    gates=("a",),
    states=("h",),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    saved=("a",),
    carries=True,
    ranges=((-1.0, 1.0),),
    settings={"rate": 0.1},
    limits={"rate": (0.0, 1.0)},
)
