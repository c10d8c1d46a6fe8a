"""What is found when one looks at a network: gates, w_rec, all in one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbflow._legible import legible
from nbflow.records._types import Floats
from nbflow.records.estimates import SequenceMean, Spectrum
from nbflow.records.trace import LagProfile


@legible
class Saturation(NamedTuple):
    """What `nbflow.saturation` returns: at which part of the steps, 0 to 1, a gate is near an end of its range.

    With replicas R stands in front of every shape. NaN where a gate was NaN, or nothing counts.

    Attributes
    ----------
    gates : tuple of G str
        As the cell names them.
    low, high : float64 array of shape (G, H)
        Near the lower end, and near the upper end, over all steps of all sequences.
    by_step : float64 array of shape (T, G)
        Near either, over sequences and units; NaN where no sequence goes so far.
    part : SequenceMean of shape (G,)
        Near either, over steps and units, as a mean over sequences.
    """

    gates: tuple[str, ...]
    low: Floats
    high: Floats
    by_step: Floats
    part: SequenceMean


@legible
class RecurrentSpectrum(NamedTuple):
    """What `nbflow.recurrent_spectrum` returns. With replicas R stands in front; NaN where a weight is not finite.

    Attributes
    ----------
    gates : tuple of G str
        As the cell names them.
    radius : float64 array of shape (G,)
        The spectral radius: the largest modulus of an eigenvalue of w_rec[:, g].
    norm : float64 array of shape (G,)
        The spectral norm: its largest singular value.
    """

    gates: tuple[str, ...]
    radius: Floats
    norm: Floats


@legible
class Diagnosis(NamedTuple):
    """What `nbflow.diagnose` returns for one network; `str` of it is the summary. Lag k is k steps before the end.

    Attributes
    ----------
    words : str
        The summary: what becomes of the gradient, why, and what to try.
    verdict : str
        What is left at the longest lag: less than 1/100 "vanishes", less than 1/2 "fades", up to 2 "stays", up to 100
        "grows", more "explodes"; "is not finite" where the loss is not.
    kept : float
        What a step back leaves of the gradient's length: the geometric mean of the gains over lags, a ratio.
    left : float64 array of shape (T+1,)
        What is left of it at lag 0 .. T: the product of the mean gains, 1 at lag 0; NaN at lags that no sequence has.
    half, hundredth : int or None
        The first lag at which less than 1/2, and less than 1/100, is left.
    loss : float
        Of the batch.
    norm : float
        Of its gradient.
    lags : LagProfile
        Norms and gains by lag, of which `left` is made: see `nbflow.gains_by_lag`.
    exponents : Spectrum
        Lyapunov exponents, in nats a step, of the longest sequences, over `steps`.
    singular_values : Spectrum
        Of ds_t/ds_0, likewise.
    steps : int
        How many steps that is: those that all of these sequences have.
    saturation : Saturation or None
        See `nbflow.saturation`; None for a cell that declares no ranges.
    spectrum : RecurrentSpectrum
        Radius and norm of w_rec.
    clipped : float or None
        The part of a run's updates in which the clip changed the gradient; None without a run that clips.
    """

    words: str
    verdict: str
    kept: float
    left: Floats
    half: int | None
    hundredth: int | None
    loss: float
    norm: float
    lags: LagProfile
    exponents: Spectrum
    singular_values: Spectrum
    steps: int
    saturation: Saturation | None
    spectrum: RecurrentSpectrum
    clipped: float | None

    def __str__(self) -> str:
        """Return the summary."""
        return self.words


@legible
class FixedPoints(NamedTuple):
    """States that a step under a constant input leaves where they are; F of them.

    Attributes
    ----------
    states : float64 array of shape (F, S, H)
        The one that most starts led to first.
    eigenvalues : complex128 array of shape (F, S*H)
        Of ds_t/ds_{t-1} at each, the largest in modulus first.
    moved : float64 array of shape (F,)
        By how much the number of the state that moves most moves in a step.
    reached : int64 array of shape (F,)
        How many starts led there.
    lost : int
        Starts that led nowhere.
    """

    states: Floats
    eigenvalues: Any
    moved: Floats
    reached: Any
    lost: int

    @property
    def attracting(self) -> Any:
        """Whether each draws its neighbourhood in, (F,): all its eigenvalues lie inside the unit circle."""
        return (np.abs(self.eigenvalues) < 1).all(axis=1)


@legible
class StackDiagnosis(NamedTuple):
    """What `nbflow.diagnose` returns for a stack: a diagnosis of each layer, and what becomes of the whole gradient.

    The gradient of all layers is that at their states together, sqrt(sum over layers ||delta_t||^2), of the loss of
    each sequence's last step with weight alone: so all that is there at lag k has come back k steps, in any layers.

    Attributes
    ----------
    words : str
        The summary: what becomes of the gradient, of all layers and of each, and what to try.
    verdict, kept, left, half, hundredth
        As `nbflow.Diagnosis` has them, of the gradient of all layers.
    loss : float
        Of the batch.
    norm : float
        Of its gradient, over the parameters of all layers.
    lags : LagProfile
        Norms of all layers together, and by how much a step back changes them.
    exponents : Spectrum
        The largest Lyapunov exponents of the stack, in nats a step: those of all its layers together, for a layer does
        not see the ones above.
    layers : tuple of Diagnosis
        Of each layer, from the bottom on: how it hands the gradient back in its own time, whatever comes from above.
        `norm` is that of its parameters; the loss is the stack's.
    clipped : float or None
        The part of a run's updates in which the clip changed the gradient; None without a run that clips.
    """

    words: str
    verdict: str
    kept: float
    left: Floats
    half: int | None
    hundredth: int | None
    loss: float
    norm: float
    lags: LagProfile
    exponents: Spectrum
    layers: tuple[Diagnosis, ...]
    clipped: float | None

    def __str__(self) -> str:
        """Return the summary."""
        return self.words
