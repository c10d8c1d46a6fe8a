"""A diagnosis as one picture: the gradient and its gain by lag, exponents, singular values, saturation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.plot._flow import gradient_by_lag
from nbflow.plot._given import record
from nbflow.plot._marks import grid, reference
from nbflow.plot._page import COLOURS, page
from nbflow.plot._saturation import saturation
from nbflow.plot._spectra import spectrum
from nbflow.records import Diagnosis, LagProfile

SIZE = (10.0, 7.0)


def diagnosis(seen: Diagnosis, *, figure: Any = None) -> Any:
    """Draw what `nbflow.diagnose` found, on a page with its summary at the top.

    Parameters
    ----------
    seen : Diagnosis
    figure : matplotlib.figure.Figure, optional
        To draw in, without the summary.

    Returns
    -------
    matplotlib.figure.Figure
        With the size of the gradient by lag, its gain, Lyapunov exponents, and how often each gate of each unit is
        saturated, or the singular values of a cell that declares no ranges.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=8, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=5, length=20)
    >>> figure = diagnosis(nf.diagnose(net, nf.init(net, "smart_tanh", rng=0), batch))
    >>> len(figure.axes)
    4
    """
    record("seen", seen, Diagnosis, "nbflow.diagnose")
    if figure is not None:
        return _drawn(seen, figure)
    title, _, words = seen.words.partition(":")
    with page(title, (words[1:2].upper() + words[2:]) if words else seen.words, SIZE) as whole:
        return _drawn(seen, whole)


def _drawn(seen: Diagnosis, figure: Any) -> Any:
    by_lag, gain, exponents, last = figure.subplots(2, 2).ravel()
    gradient_by_lag(seen.lags, relative=True, colour=COLOURS[1], ax=by_lag)
    for part in (seen.half, seen.hundredth):
        if part is not None:
            reference(by_lag, x=part)
    _draw_gain(seen.lags, gain)
    spectrum(seen.exponents, "lyapunov", colour=COLOURS[2], ax=exponents)
    if seen.saturation is None:
        spectrum(seen.singular_values, "singular", colour=COLOURS[3], ax=last)
    else:
        saturation(seen.saturation, ax=last)
        last.legend(frameon=False)
    return figure


def _draw_gain(lags: LagProfile, ax: Any) -> None:
    """Draw the gain of a step by lag, with the interval of its mean."""
    mean, low, high, _ = lags.gain
    places = np.arange(len(mean))
    ax.fill_between(places, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    ax.plot(places, mean, color=COLOURS[0], linewidth=2)
    reference(ax, y=1.0)
    ax.set(xlabel="lag (steps back from the end)", ylabel="gain of a step back (ratio)")
    grid(ax)
