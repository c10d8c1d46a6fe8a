"""Noise: how much there is at every unit, and which."""

from __future__ import annotations

from dataclasses import dataclass

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._limits import RATES
from nbflow.records._types import Floats


@legible
@dataclass(frozen=True)
class Noise:
    """How much noise there is at every unit, and which: a_t = x_t w_in + h_{t-1} w_rec + bias + deviation xi_t.

    As in the recurrent networks of neuroscience (Song, Yang, Wang 2016; Yang, Wang 2020). xi_t are standard normals,
    independent from step to step, sequence to sequence and unit to unit, and from gate to gate in cells that have
    several; where a_in and a_rec do not enter as a sum, the noise is part of a_in. They are drawn by counter, so the
    same seed, index, replica, sequence, step, gate and unit are the same number, whatever else is computed. The noise
    is a constant to every derivative.

    Parameters
    ----------
    deviation : float, or float array of shape (R,)
        The standard deviation, in units of a pre-activation; 0 is as none.
    seed, index : int
        Which draws: the same ones for the same two. Update k of an `nbflow.train` has those of its seed and index k.

    Notes
    -----
    In `leaky_tanh` with rate = dt/tau the noise is under the tanh: deviation = sqrt(2 / rate) sigma_rec is that of Yang
    and Wang 2020.
    """

    deviation: float | Floats
    seed: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        """Check what needs no network."""
        plain_fields(self)
        _fields.check_numeric("deviation", self.deviation, RATES)
        _check.count("seed", self.seed, 0)
        _check.index("index", self.index)
