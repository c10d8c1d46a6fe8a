"""Complex linear units in real numbers: z' = lambda z + a, h = Re z (Orvieto et al. 2023, the linear recurrent unit).

    re' = real re - imaginary im + a_re,      im' = imaginary re + real im + a_im,      a = a_in + a_rec

lambda = real + i imaginary = |lambda| exp(i angle) turns a unit by its angle at every step, and shrinks it by |lambda|:
one number, or one for each unit; it is not trained. With w_rec = 0 units do not see each other, every gain is |lambda|
of some unit, and this is the diagonal recurrence of Orvieto et al., whose trained lambda and scale of the inputs it
leaves out (w_in has any scale); their outputs take a complex combination of z, these the real parts of it, so that a
unit is needed for each phase. With w_rec it is a linear network that has units with memories of their own.
"""

from nbflow import unit
from nbflow.records import Cell


@unit
def step(a_in, a_rec, s, settings):
    return turned(s, settings, a_in[0] + a_rec[0], a_in[1] + a_rec[1]), ()


@unit
def turned(s, settings, a_re, a_im):
    """Return lambda (re + i im) + a."""
    real, imaginary = settings
    return real * s[0] - imaginary * s[1] + a_re, imaginary * s[0] + real * s[1] + a_im


@unit
def step_vjp(saved, s, s_next, d, settings):
    """Turn back: what is transposed has -imaginary for imaginary."""
    real, imaginary = settings
    return d, d, (real * d[0] + imaginary * d[1], real * d[1] - imaginary * d[0])


@unit
def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot, settings):
    return turned(s_dot, settings, a_in_dot[0] + a_rec_dot[0], a_in_dot[1] + a_rec_dot[1])


@unit
def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot, settings):
    return step_vjp(saved, s, s_next, d_dot, settings)


CELL = Cell(
    gates=("re", "im"),
    states=("re", "im"),
    step=step,
    step_vjp=step_vjp,
    step_jvp=step_jvp,
    step_vjp_jvp=step_vjp_jvp,
    carries=True,
    settings={"real": 0.9, "imaginary": 0.3},
)
