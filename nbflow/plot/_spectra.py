"""Spectra: Lyapunov exponents, singular values of the long Jacobian, and eigenvalues on the unit circle."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.plot._given import one_network, record
from nbflow.plot._marks import axes_of, grid, intervals, reference
from nbflow.plot._page import COLOURS
from nbflow.plot._theme import inks
from nbflow.records import FixedPoints, Floats, Interval, Spectrum

# What a spectrum is of: words on its axis, the scale, and the value that means "neither grows nor shrinks".
KINDS = {
    "lyapunov": ("Lyapunov exponent (nats a step)", "linear", 0.0),
    "singular": (r"singular value of $\partial s_T / \partial s_0$ (ratio)", "log", 1.0),
}
MARKS = "os^Dv<"


def spectrum(seen: Spectrum, of: str, *, colour: str = COLOURS[0], label: str | None = None, ax: Any = None) -> Any:
    """Draw a spectrum from its largest value down: means over sequences with their intervals, and each sequence.

    Parameters
    ----------
    seen : Spectrum
    of : str
        "lyapunov", from `nbflow.lyapunov_exponents`, or "singular", from `nbflow.jacobian_singular_values`.
    colour : str
    label : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Above the dashed line a direction grows, below it shrinks.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> inputs = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=3, length=30).inputs
    >>> found = nf.lyapunov_exponents(net, nf.init(net, "orthogonal", rng=0), inputs, k=4)
    >>> spectrum(found, "lyapunov").get_ylabel()
    'Lyapunov exponent (nats a step)'
    """
    record("seen", seen, Spectrum, "nbflow.lyapunov_exponents or nbflow.jacobian_singular_values")
    words, scale, still = KINDS[_check.choice("of", of, tuple(KINDS))]
    ax, values = axes_of(ax), one_network("seen.values", seen.values, 2)
    places = np.arange(1, values.shape[1] + 1)
    ax.plot(places, values.T, ".", color=colour, markersize=3, alpha=0.35, zorder=1)
    ends = [Interval(*parts) for parts in zip(seen.mean, seen.low, seen.high, strict=True)]
    intervals(list(places), ends, colour=colour, label=label, ax=ax)
    reference(ax, y=still)
    ax.set_yscale(scale)
    ax.set(xlabel="number, from the largest", ylabel=words)
    ax.xaxis.get_major_locator().set_params(integer=True)
    grid(ax, "y")
    return ax


def eigenvalues(
    net: Network, theta: Floats, *, gate: str | None = None, points: FixedPoints | None = None, ax: Any = None
) -> Any:
    """Draw the eigenvalues of w_rec, or of the step at fixed points, in the complex plane, beside the unit circle.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    gate : str, optional
        One of the cell's; all of them by default, each with a colour and a mark.
    points : FixedPoints, optional
        From `nbflow.fixed_points`, of the same network: then their eigenvalues are drawn instead, those of points that
        attract in one colour and mark, of all others in another.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Of a gate with weights that are not finite nothing is drawn.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> ax = eigenvalues(net, theta)
    >>> np.abs(ax.lines[0].get_xydata() @ [1, 1j]).round(6).tolist()
    [1.0, 1.0, ...]
    >>> eigenvalues(net, theta, points=nf.fixed_points(net, theta, 0)).get_xlabel()
    'real part'
    """
    w_rec = one_network("theta's w_rec", unpack(net, theta).w_rec, 3)
    clouds = _of_gates(net, w_rec, gate) if points is None else _of_points(net, points, gate)
    ax = axes_of(ax)
    for place, (name, found) in clouds.items():
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        ax.plot(found.real, found.imag, mark, color=colour, markersize=4, alpha=0.8, label=name)
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color=inks(ax).faint, linewidth=0.9, zorder=0)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    grid(ax)
    return ax


def _of_gates(net: Network, w_rec: Floats, gate: str | None) -> dict[int, tuple[str, Any]]:
    """Return name and eigenvalues of each gate, by its place."""
    gates, found = net.cell_object.gates, {}
    for name in gates if gate is None else (_check.choice("gate", gate, gates),):
        matrix = w_rec[:, gates.index(name)]
        found[gates.index(name)] = (
            name,
            np.linalg.eigvals(matrix) if np.isfinite(matrix).all() else np.empty(0, complex),
        )
    return found


def _of_points(net: Network, points: FixedPoints, gate: str | None) -> dict[int, tuple[str, Any]]:
    """Return name and eigenvalues of the fixed points that attract, and of those that do not."""
    record("points", points, FixedPoints, "nbflow.fixed_points")
    if gate is not None:
        raise ValueError(f"gate is {_check.said(gate)} beside points; expected None, as a step has all gates in it. "
                         f"Leave one out.")  # fmt: skip
    size = len(net.cell_object.states) * net.n_hidden
    if np.ndim(points.eigenvalues) != 2 or np.shape(points.eigenvalues)[1] != size:
        raise ValueError(f"points has eigenvalues of shape {np.shape(points.eigenvalues)}; expected (F, {size}). Pass "
                         f"those of this network.")  # fmt: skip
    inside = points.attracting
    kinds = {"attracts": points.eigenvalues[inside], "does not attract": points.eigenvalues[~inside]}
    return {place: (name, values.ravel()) for place, (name, values) in enumerate(kinds.items()) if values.size}
