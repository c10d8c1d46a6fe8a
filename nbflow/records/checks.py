"""What a check of a gradient, and a calibration of a threshold, return."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbflow._legible import legible
from nbflow.records._types import Floats


@legible
class GradientCheck(NamedTuple):
    """What `nbflow.check_gradient` returns: relative errors of the whole vector, and where the worst entry lies.

    Attributes
    ----------
    error_central, error_complex : float
        ||d_theta - differences|| / ||differences||, for central and for complex-step differences.
    worst : str
        The parameter with the largest complex-step difference, as in "w_rec[3, 0, 2]".
    d_theta : net.dtype array of shape (P,)
        The gradient that was checked.
    central, complex_step : float64 array of shape (P,)
        The differences that it was compared with.
    """

    error_central: float
    error_complex: float
    worst: str
    d_theta: Floats
    central: Floats
    complex_step: Floats


@legible
class Calibration(NamedTuple):
    """What `nbflow.calibrate_threshold` returns: norms of n gradients that were not clipped, in units of the gradient.

    Norms and the thresholds that fit them scale with the weights of the batches: a task's make a mean over B sequences,
    so they do not grow with B; with weights for a sum they do. With replicas numbers are arrays (R,).

    Attributes
    ----------
    norms : float64 array of shape (n,), or of shape (n, R)
        One for each update; NaN where the gradient was not finite.
    mean, median : float, or float64 array of shape (R,)
        Of the finite ones; NaN if there is none.
    quantiles : float64 array of shape (Q,), or of shape (Q, R)
        Of the finite ones, at `levels`.
    levels : tuple of Q float
        Parts of the norms that lie below, 0 to 1.
    nonfinite : int, or int64 array of shape (R,)
        How many gradients were not finite.
    low, high : float, or float64 array of shape (R,)
        Half the mean and ten times the mean: between them Pascanu, Mikolov, Bengio 2013 found thresholds that work.
    """

    norms: Floats
    mean: Any
    median: Any
    quantiles: Floats
    levels: tuple[float, ...]
    nonfinite: Any
    low: Any
    high: Any
