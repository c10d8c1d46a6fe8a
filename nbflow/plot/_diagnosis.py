"""A diagnosis as one picture: the gradient and its gain by lag, exponents, singular values, saturation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.plot._flow import gradient_by_lag
from nbflow.plot._given import record
from nbflow.plot._marks import DASHED, grid, intervals, reference
from nbflow.plot._page import COLOURS, page
from nbflow.plot._saturation import saturation
from nbflow.plot._spectra import spectrum
from nbflow.plot._theme import inks
from nbflow.records import Diagnosis, Interval, LagProfile, Saturation, StackDiagnosis

SIZE = (10.0, 7.0)


def diagnosis(seen: Diagnosis | StackDiagnosis, *, figure: Any = None) -> Any:
    """Draw what `nbflow.diagnose` found, on a page with its summary at the top.

    Parameters
    ----------
    seen : Diagnosis or StackDiagnosis
    figure : matplotlib.figure.Figure, optional
        To draw in, without the summary.

    Returns
    -------
    matplotlib.figure.Figure
        With the size of the gradient by lag, its gain, Lyapunov exponents, and how often each gate of each unit is
        saturated, or the singular values of a cell that declares no ranges. Of a stack a line for each layer, and in
        the first picture one for all of them, which is dashed; its saturation is that of each gate.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=8, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=5, length=20)
    >>> figure = diagnosis(nf.diagnose(net, nf.init(net, "smart_tanh", rng=0), batch))
    >>> len(figure.axes)
    4
    """
    draw: Any = _drawn_stack
    if not isinstance(seen, StackDiagnosis):
        record("seen", seen, Diagnosis, "nbflow.diagnose")
        draw = _drawn
    if figure is not None:
        return draw(seen, figure)
    title, _, words = seen.words.partition(":")
    with page(title, (words[1:2].upper() + words[2:]) if words else seen.words, SIZE) as whole:
        return draw(seen, whole)


def _drawn_stack(seen: StackDiagnosis, figure: Any) -> Any:
    by_lag, gain, exponents, last = figure.subplots(2, 2).ravel()
    mean = seen.lags.delta_norm.mean
    for number, layer in enumerate(seen.layers):
        colour, label = COLOURS[number % len(COLOURS)], f"layer {number}"
        gradient_by_lag(layer.lags, relative=True, colour=colour, label=label, ax=by_lag)
        _draw_gain(layer.lags, gain, colour, label)
        spectrum(layer.exponents, "lyapunov", colour=colour, label=label, ax=exponents)
        if all(one.saturation is None for one in seen.layers):
            spectrum(layer.singular_values, "singular", colour=colour, label=label, ax=last)
        elif layer.saturation is not None:
            _draw_gates(layer.saturation, number, colour, last)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_lag.plot(mean / mean[0], color=inks(by_lag).ink, linewidth=1.6, linestyle=DASHED, label="all layers")
    for ax in (by_lag, gain, exponents):
        ax.legend(frameon=False)
    return figure


def _draw_gates(seen: Saturation, number: int, colour: str, ax: Any) -> None:
    """Draw how much of the time each gate of a layer is at an end of its range, a point a gate, with its name."""
    mean, low, high, _ = seen.part
    places = number + 0.5 * (np.arange(len(mean)) + 0.5) / len(mean) - 0.25
    ends = [Interval(*(100 * np.array(parts))) for parts in zip(mean, low, high, strict=True)]
    intervals(list(places), ends, colour=colour, linewidth=0, ax=ax)
    for place, part, gate in zip(places, mean, seen.gates, strict=True):
        ax.annotate(gate, (place, 100 * part), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set(xlabel="layer", ylabel="saturated (% of steps)", ylim=(0, 100))
    ax.xaxis.get_major_locator().set_params(integer=True)
    grid(ax, "y")


def _drawn(seen: Diagnosis, figure: Any) -> Any:
    by_lag, gain, exponents, last = figure.subplots(2, 2).ravel()
    gradient_by_lag(seen.lags, relative=True, colour=COLOURS[1], ax=by_lag)
    for part in (seen.half, seen.hundredth):
        if part is not None:
            reference(by_lag, x=part)
    _draw_gain(seen.lags, gain, COLOURS[0])
    spectrum(seen.exponents, "lyapunov", colour=COLOURS[2], ax=exponents)
    if seen.saturation is None:
        spectrum(seen.singular_values, "singular", colour=COLOURS[3], ax=last)
    else:
        saturation(seen.saturation, ax=last)
        last.legend(frameon=False)
    return figure


def _draw_gain(lags: LagProfile, ax: Any, colour: str, label: str | None = None) -> None:
    """Draw the gain of a step by lag, with the interval of its mean."""
    mean, low, high, _ = lags.gain
    places = np.arange(len(mean))
    ax.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(places, mean, color=colour, linewidth=2, label=label)
    reference(ax, y=1.0)
    ax.set(xlabel="lag (steps back from the end)", ylabel="gain of a step back (ratio)")
    grid(ax)
