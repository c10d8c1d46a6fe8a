"""A page: its style, its colours, its head, and the file that it is written to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbflow.plot._theme import SIZE, dark, faint, needed, style
from nbflow.storage._files import whole

# Okabe and Ito 2008: told apart by colour-blind readers too, and in this order also by their lightness.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Inches: from the edges to the head, down to its second line, from line to line, and below the last one.
EDGE, SECOND, LINE, BELOW = 0.1, 0.42, 0.195, 0.19
# What is not broken: a formula, also one that has a word at its end, and a word.
WHOLE = re.compile(r"(?:\$[^$]*\$|[^\s$])+")


@contextmanager
def page(title: str, words: str, size: tuple[float, float], *, dpi: int = 120, **pads: float) -> Iterator[Any]:
    """Give a figure with a title and a few lines at its top, and its style as long as it is drawn on.

    Parameters
    ----------
    title, words : str
        Lines of the words that are too long are broken.
    size : (float, float)
        Width and height in inches of what is below the head.
    dpi : int
    pads : float
        Of matplotlib's constrained layout: h_pad, w_pad, hspace, wspace.

    Yields
    ------
    matplotlib.figure.Figure

    Examples
    --------
    >>> with page("A title", "and what is drawn", (4, 3)) as figure:
    ...     axes = figure.subplots()
    >>> figure.get_size_inches().tolist()
    [4.0, 3.8...]
    """
    needed()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = [part for line in words.splitlines() for part in _broken(line, size[0] - 2 * EDGE)]
    head = SECOND + LINE * len(lines) + BELOW if title or lines else 0.0
    width, height = size[0], size[1] + head
    with rc_context(style()):
        padding: dict[str, Any] = {"h_pad": 0.08, "w_pad": 0.07, **pads}
        layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - head / height), **padding)
        figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
        left = EDGE / width
        figure.text(left, 1 - EDGE / height, title, fontsize=15, fontweight="bold", va="top")
        figure.text(left, 1 - SECOND / height, "\n".join(lines), color=faint(), va="top", linespacing=1.4)
        yield figure


def _broken(line: str, inches: float) -> list[str]:
    """Return parts of a line that are no longer than so many inches each."""
    if _length(line) <= inches:
        return [line]
    found = [""]
    for part in WHOLE.findall(line):
        longer = f"{found[-1]} {part}".lstrip()
        if found[-1] and _length(longer) > inches:
            found.append(part)
        else:
            found[-1] = longer
    return found


def _length(words: str) -> float:
    """Return how long words are, in inches; letters are not alike."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), words, size=SIZE).get_extents().width) / 72 if words.strip() else 0.0


def shades(count: int) -> Any:
    """Return colours (count, 4) ever farther from the page: told apart by colour-blind readers and in grey.

    On light pages they darken, on those of `theme("dark")` they grow lighter.
    """
    from matplotlib import colormaps

    return colormaps["viridis" if dark() else "viridis_r"](np.linspace(0.25 if dark() else 0.08, 1.0, count))


def save(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a picture beside `path` and rename it, so that there is never half a picture; return the path.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Its suffix says the format; missing folders are made.

    Returns
    -------
    Path
    """
    target = Path(path)
    with whole(target) as beside:
        figure.savefig(beside)
    return target
