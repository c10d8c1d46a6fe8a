"""The picture of scripts/cliff.py: the loss in space, from above and near by, and along both descents."""

from __future__ import annotations

from typing import Any

import numpy as np
from cliff_surface import Array, Descent, Options, Surface

from nbflow import plot

# The smallest loss on the axis: a step that lands on the very bottom of the ravine has next to none.
LOWEST = 1e-5


def about(options: Options) -> str:
    """Say what is drawn."""
    return (
        f"A unit without input, $x_t = w\\,\\sigma(x_{{t-1}}) + b$, $x_0 = {options.x_0:g}$; loss $(\\sigma(x_T) - "
        f"{options.target:g})^2$ after $T = {options.steps}$ steps. Both descents: learning rate {options.lr:g}, "
        f"{options.updates} updates\nfrom w = {options.start[0]:g}, b = {options.start[1]:g} (white dot). "
        f"Clipped: a gradient with a norm above {options.threshold:g} is scaled down to {options.threshold:g}."
    )


def picture(options: Options, whole: Surface, ravine: Surface, plain: Descent, clipped: Descent) -> Any:
    """Draw the surface in space, its map with both paths, the ravine near by, and the losses."""
    paths = ((plain, plot.COLOURS[0]), (clipped, plot.COLOURS[1]))
    title = "A cliff in the loss of a recurrent network catapults plain gradient descent; clipping holds it"
    with plot.page(title, about(options), (13, 9.6)) as found:
        _draw_space(found.add_subplot(2, 2, 1, projection="3d"), whole, paths)
        ends = "plain: ends here", "clipped: ends here"
        _draw_map(found.add_subplot(2, 2, 2), whole, paths, "The same from above", ends)
        _draw_map(found.add_subplot(2, 2, 3), ravine, paths, "Near the ravine at the foot of the cliff")
        _draw_losses(found.add_subplot(2, 2, 4), options, plain, clipped)
    return found


def _draw_space(axes: Any, where: Surface, paths: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    thin = slice(None, None, max(1, len(where.w) // 150))
    w, b = np.meshgrid(where.w[thin], where.b[thin])
    loss = where.loss[thin, thin]
    axes.computed_zorder = False
    colours = colormaps["viridis"](LogNorm(1e-4, 0.5)(loss))
    axes.plot_surface(w, b, loss, facecolors=colours, rstride=1, cstride=1, linewidth=0, antialiased=False,
                      shade=False, zorder=1)  # fmt: skip
    for k, (descent, colour) in enumerate(paths):
        inside = _inside(descent, where)
        points = np.where(inside[:, None], descent.points, np.nan)
        axes.plot(
            *points.T, descent.losses + 0.004, color=colour, linewidth=2, marker="o", markersize=2.5, zorder=3 + k
        )
    w_0, b_0 = paths[0][0].points[0]
    axes.plot([w_0], [b_0], [paths[0][0].losses[0] + 0.004], "o", color="white", markeredgecolor=plot.INK, zorder=6)
    axes.set(xlabel="w (recurrent weight)", ylabel="b (bias)", zlabel="loss", title="The loss over w and b")
    axes.locator_params(nbins=5)
    axes.view_init(elev=28, azim=38)
    axes.set_box_aspect((1, 1.2, 0.6), zoom=1.0)


def _inside(descent: Descent, where: Surface) -> Any:
    w, b = descent.points.T
    return (w >= where.w[0]) & (w <= where.w[-1]) & (b >= where.b[0]) & (b <= where.b[-1])


def _draw_map(axes: Any, where: Surface, paths: Any, title: str, words: tuple[str, str] = ("", "")) -> None:
    plot.cliff(where.w, where.b, where.loss, {str(k): path.points for k, (path, _) in enumerate(paths)}, ax=axes)
    axes.collections[0].colorbar.set_label("loss (square error, log scale)")
    axes.set_title(title)
    _label(axes, "start", paths[0][0].points[0], above=True)
    for word, (descent, _), above in zip(words, paths, (True, False), strict=True):
        if word and _inside(descent, where)[-1]:
            _label(axes, word, descent.points[-1], above=above)


def _label(axes: Any, word: str, at: Array, *, above: bool) -> None:
    """Write a word beside a point, on the side with more room."""
    left = at[0] < sum(axes.get_xlim()) / 2
    axes.annotate(word, at, (10 if left else -10, 10 if above else -10), textcoords="offset points", fontsize=9.5,
                  ha="left" if left else "right", va="bottom" if above else "top", zorder=7,
                  bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.5})  # fmt: skip


def _draw_losses(axes: Any, options: Options, plain: Descent, clipped: Descent) -> None:
    low, high = (end(end(path.losses) for path in (plain, clipped)) for end in (min, max))
    bottom = max(low, LOWEST) / 8
    for name, descent, colour in (("plain", plain, plot.COLOURS[0]), ("clipped", clipped, plot.COLOURS[1])):
        table = {"update": range(len(descent.losses)), "loss": descent.losses}
        plot.learning_curve(table, "loss", unit="square error", bottom=bottom, marker="o", colour=colour,
                            label=f"{name} gradient descent", ax=axes)  # fmt: skip
    title = "The loss along both paths" + (" (triangles: below the axis)" if low < bottom else "")
    axes.set_title(title)
    axes.set_ylim(bottom, 8 * high)
    plot.plain_log(axes.yaxis)
    plot.legend_beside(axes, columns=2)
    k = plain.jump
    w, b = plain.points[k + 1]
    words = f"update {k + 1} throws the plain one from the cliff face\nto w = {w:.2f}, b = {b:.2f}"
    axes.annotate(words, (k, plain.losses[k]), (6, 4), textcoords="offset points", va="bottom", fontsize=9,
                  ha="left" if 2 * k < len(plain.norms) else "right", color=plot.COLOURS[0])  # fmt: skip
