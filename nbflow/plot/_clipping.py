"""What clipping does: to one gradient, and to the gradient on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.plot._given import record
from nbflow.plot._marks import axes_of, grid, intervals, reference
from nbflow.plot._page import COLOURS
from nbflow.plot._theme import inks
from nbflow.records import Clipped, ClippingBias

# What is drawn of a bias: its words, and the value that means "none".
METRICS = {
    "cosine": ("cosine with the true gradient", 1.0),
    "relative_norm": ("norm / norm of the true gradient", 1.0),
    "sign_agreement": ("entries with the true sign (part)", 1.0),
    "bias": ("distance from the true gradient / its norm", 0.0),
}


def clip_report(done: Clipped | Mapping[str, Clipped], *, ax: Any = None) -> Any:
    """Draw what one clip, or each of several, did to a gradient: an arrow from the norm before to the norm after.

    Above each stands what an arrow of lengths leaves out: the cosine between before and after, and how many entries
    were clipped.

    Parameters
    ----------
    done : Clipped, or dict of Clipped
        From `nbflow.clip`, by name; with replicas each has a row of its own.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=1, n_hidden=2, n_out=1)
    >>> gradient = np.full(net.size, 3.0, np.float32)
    >>> ax = clip_report({rule: nf.clip(net, gradient, nf.Clip(rule, 1.0)) for rule in ("norm", "value")})
    >>> [words.get_text() for words in ax.get_yticklabels()]
    ['norm', 'value']
    """
    rows = _rows(done)
    ax = axes_of(ax)
    largest = max((row[1] for row in rows if np.isfinite(row[1])), default=1.0) or 1.0
    for place, (_, before, after, words) in enumerate(rows):
        if np.isfinite([before, after]).all():
            ax.plot([after, before], [place, place], color=COLOURS[5], linewidth=1.6, zorder=1)
            ax.plot(before, place, "o", color=inks(ax).ink, markersize=5)
            ax.plot(after, place, "<" if after < before else "o", color=COLOURS[0], markersize=8)
        ax.text(0, place - 0.14, f" {words}", fontsize=9, va="bottom", color=inks(ax).faint, clip_on=True)
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.set(xlabel="norm before (dot) and after (arrow)", xlim=(0, 1.08 * largest))
    ax.set_ylim(len(rows) - 0.5, -0.7)
    grid(ax, "x")
    return ax


def _rows(done: Any) -> list[tuple[str, float, float, str]]:
    """Return name, norm before, norm after and words of each clip, replica by replica."""
    found = []
    for name, one in (done if isinstance(done, Mapping) else {"": done}).items():
        record("done", one, Clipped, "nbflow.clip")
        numbers = np.broadcast_arrays(one.norm, one.clipped_norm, one.fraction, one.cosine, one.finite)
        single = numbers[0].ndim == 0
        for r, (before, after, part, cosine, finite) in enumerate(zip(*map(np.atleast_1d, numbers), strict=True)):
            words = f"cosine {cosine:.3f}, {100 * part:.3g} % of entries" if finite else "was not finite"
            found.append((name if single else f"{name} {r}".strip(), float(before), float(after), words))
    return found


def clipping_bias(
    seen: ClippingBias,
    metric: str = "cosine",
    *,
    names: Sequence[str] | None = None,
    least: float | None = None,
    mark: float | None = None,
    colour: str = COLOURS[1],
    ax: Any = None,
) -> Any:
    """Draw how far the mean of clipped gradients is from the true gradient, in the long run: a row for each way.

    Parameters
    ----------
    seen : ClippingBias
        From `nbflow.clipping_bias`.
    metric : str
        "cosine", "relative_norm", "sign_agreement" or "bias".
    names : sequence of str, optional
        Which ways of clipping, and in which order; one that `seen` has not leaves its row empty.
    least : float, optional
        Where the axis begins; of a way that is below it the number is written.
    mark : float, optional
        Where a dashed line stands, by default where there is no bias.
    colour : str
        Of the intervals.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=10, n_out=4)
    >>> ways = [nf.Clip("norm", 0.05), nf.Clip("value", 0.01)]
    >>> theta = nf.init(net, "basic_tanh", rng=0)
    >>> found = nf.clipping_bias(net, theta, "temporal_order", ways, length=10, count=20, resamples=50, rng=0)
    >>> ax = clipping_bias(found, "cosine")
    >>> [words.get_text() for words in ax.get_yticklabels()]
    ['norm 0.05', 'value 0.01']
    """
    record("seen", seen, ClippingBias, "nbflow.clipping_bias")
    label, none = METRICS[_check.choice("metric", metric, tuple(METRICS))]
    ax, names = axes_of(ax), list(seen.rules if names is None else names)
    for row, name in enumerate(names):
        if name in seen.rules:
            _one(ax, row, getattr(seen.rules[name], metric), least, colour)
    reference(ax, x=none if mark is None else mark)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=least, auto=True)  # more may be drawn on axes that share this one
    ax.set_xlabel(label)
    grid(ax, "x")
    return ax


def _one(ax: Any, row: int, value: Any, least: float | None, colour: str) -> None:
    words = ""
    if not np.isfinite(value).all():
        words = "nothing but noise"
    elif least is not None and value.value < least:
        words = f"◄ {value.value:.2f} ({value.low:.2f} to {value.high:.2f})"
    if words:
        ax.text(0.02, row, words, transform=ax.get_yaxis_transform(), fontsize=8, color=inks(ax).faint, va="center")
    else:
        intervals([row], [value], ecolor=colour, elinewidth=2, capsize=0, across=True, ax=ax)
