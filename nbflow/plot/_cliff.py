"""The loss over two parameters from above, and the paths that descents take on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow.plot._marks import axes_of
from nbflow.plot._page import COLOURS
from nbflow.plot._theme import needed
from nbflow.records import Floats


def cliff(
    x: Floats,
    y: Floats,
    loss: Floats,
    paths: Mapping[str, Any] | None = None,
    *,
    limits: tuple[float, float] = (1e-4, 0.5),
    ax: Any = None,
) -> Any:
    """Draw a loss over two parameters as a map, with the points of descents on it.

    Parameters
    ----------
    x, y : arrays of shapes (m,) and (n,)
        The parameters, ascending.
    loss : array of shape (n, m)
        A row for each y.
    paths : dict of arrays of shape (k, 2), optional
        By name: x and y before each update, and after the last. The first point of the first is marked as the start.
    limits : (float, float)
        Between which losses the colours change, logarithmically.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With a map, its colour bar and a labelled line for each path; an arrow where a path moves farthest.

    Examples
    --------
    >>> import numpy as np
    >>> w, b = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
    >>> ax = cliff(w, b, w**2 + b[:, None] ** 2, {"plain": [(1, 1), (0.5, 0.5), (0.2, 0.2)]})
    >>> ax.get_legend_handles_labels()[1]
    ['plain']
    """
    needed()
    from matplotlib.colors import LogNorm

    x, y, loss = (np.asarray(part, float) for part in (x, y, loss))
    if x.ndim != 1 or y.ndim != 1 or loss.shape != (len(y), len(x)):
        raise ValueError(
            f"x, y and loss have shapes {x.shape}, {y.shape} and {loss.shape}; expected (m,), (n,) and (n, m). "
            f"Give a row of losses for each y."
        )
    ax = axes_of(ax)
    mesh = ax.pcolormesh(x, y, loss, norm=LogNorm(*limits), cmap="viridis", shading="auto", rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label="loss (log scale)", extend="both", pad=0.02)
    ax.set(xlim=x[[0, -1]], ylim=y[[0, -1]], xlabel="w (recurrent weight)", ylabel="b (bias)")
    for number, (name, points) in enumerate((paths or {}).items()):
        _path(ax, name, np.asarray(points, float), COLOURS[number % len(COLOURS)])
        if number == 0:
            ax.plot(
                *np.asarray(points, float)[0], "o", color="white", markeredgecolor="#222222", markersize=9, zorder=6
            )
    return ax


def _path(ax: Any, name: str, points: Floats, colour: str) -> None:
    """Draw the points of a descent, on a light rim so that they are seen on any colour of the map."""
    ax.plot(*points.T, color="white", linewidth=2.4, alpha=0.5, zorder=3)
    ax.plot(*points.T, color=colour, linewidth=1.2, marker="o", markersize=3, zorder=4, label=name)
    if len(points) < 2:
        return
    jump = int(np.hypot(*np.diff(points, axis=0).T).argmax())
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "mutation_scale": 18, "shrinkA": 0, "shrinkB": 0}
    drawn = ax.annotate("", points[jump + 1], points[jump], arrowprops=arrow, zorder=5, annotation_clip=False)
    drawn.arrow_patch.set(clip_on=True, clip_box=ax.bbox)
