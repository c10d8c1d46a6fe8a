"""Fixed points of the state under a constant input: where a network can stay, and whether it is drawn there."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.diagnostics.jacobians import partials
from nbflow.diagnostics.singular_values import in_double
from nbflow.model import _arguments
from nbflow.model._step import preactivations
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.records import FixedPoints, Floats, Params


def fixed_points(
    net: Network,
    theta: Floats,
    inputs: Any,
    *,
    starts: int | Floats = 32,
    steps: int = 0,
    tolerance: float = 1e-9,
    apart: float = 1e-4,
    rng: Any = 0,
) -> FixedPoints:
    """Find states that a step under a constant input leaves where they are, and the eigenvalues of the step there.

    From each start Powell's hybrid method (`scipy.optimize.root`) solves step(s) = s with the cell's own derivatives
    (Sussillo and Barak 2013 look for fixed points of recurrent networks to understand what they do). It finds
    attracting and repelling ones alike, and none that no start leads to: it is no proof that there are no others. In
    double precision; for small networks, as the Jacobian is (S H)^2 numbers.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    inputs : array of shape (N,), or an integer token
        The input of every step; of tokens in random order, say, their mean: the frequencies of all N.
    starts : int or array of shape (K, S, H)
        Where to look from: so many states, zeros first and then uniform in (-1, 1), or these.
    steps : int
        So many steps each start takes by itself before it is solved from. With hundreds, what is found is where the
        network goes, and no longer the others.
    tolerance : float
        A solution counts if no number of the state moves by more than this, times the largest of the state where that
        is above 1.
    apart : float
        Solutions whose largest difference, likewise, is at most this count as one.
    rng : int or numpy.random.Generator
        Draws the starts.

    Returns
    -------
    FixedPoints
        The one that most starts led to first.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or theta is not finite.

    Examples
    --------
    A linear network has one, s = (1 - W)^-1 b:

    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=2, n_hidden=1, n_out=1, loss="square", dtype="float64")
    >>> theta = np.array([0.0, 0.0, 0.5, 1.0, 0.0, 0.0])  # w_in, w_rec, bias, w_out, b_out
    >>> found = nf.fixed_points(net, theta, np.zeros(2))
    >>> found.states.round(6).tolist(), found.eigenvalues.real.round(6).tolist(), found.attracting.tolist()
    ([[[2.0]]], [[0.5]], [True])
    """
    if not _arguments.parameters(net, theta)[1]:
        raise ValueError(f"theta has shape {theta.shape}; expected ({net.size},). Take one replica: theta[0].")
    given = _constant(net, inputs)
    net, theta, shaped, _ = in_double(net, theta, given, None)
    _check.finite("theta", theta, "Take parameters of before it diverged.")
    steps = _check.count("steps", steps, 0)
    tolerance, apart = (_positive(name, value) for name, value in (("tolerance", tolerance), ("apart", apart)))
    first = _starts(net, starts, _check.generator("rng", rng))
    step = _Step(net, theta, shaped[0])
    for _ in range(steps):
        first = step(first)
    found = [step.solve(one, tolerance) for one in first]
    return _gathered(step, [one for one in found if one is not None], len(found), apart)


def _constant(net: Network, inputs: Any) -> Any:
    """Return the input as a batch of one step of one sequence, which the boundary then checks."""
    if isinstance(inputs, int | np.integer) and not isinstance(inputs, bool):
        return np.array([[inputs]])
    if not isinstance(inputs, np.ndarray):
        raise TypeError(
            f"inputs is {_check.said(inputs)}; expected an array of the N inputs of every step, or an integer token. "
            f"Pass np.zeros(net.n_in), say."
        )
    if inputs.shape != (net.n_in,):
        raise ValueError(f"inputs has shape {inputs.shape}; expected ({net.n_in},), the input of every step. Take one.")
    return inputs[None, None].astype(net.dtype) if inputs.dtype.kind in "iuf" else inputs[None, None]


def _positive(name: str, value: Any) -> float:
    found = float(_check.per_replica(name, value, 1, least=0.0, finite=True)[0])
    if not found > 0:
        raise ValueError(f"{name} is {found:g}; expected a number above 0. Leave it out.")
    return found


def _starts(net: Network, starts: Any, rng: np.random.Generator) -> Floats:
    """Return where to look from, (K, S, H)."""
    lead = len(net.cell_object.states), net.n_hidden
    if not isinstance(starts, np.ndarray):
        drawn: Floats = rng.uniform(-1, 1, (_check.count("starts", starts), *lead))
        drawn[0] = 0
        return drawn
    if starts.dtype.kind not in "iuf" or starts.ndim != 3 or starts.shape[1:] != lead or not len(starts):
        raise ValueError(
            f"starts has shape {starts.shape} and dtype {starts.dtype}; expected real numbers of shape (K, S, H), "
            f"S and H {lead}. Pass states, or how many."
        )
    _check.finite("starts", starts, "Leave the others out.")
    return starts.astype(np.float64)


class _Step:
    """A step of the network under one input, of states (K, S, H), with its derivatives."""

    def __init__(self, net: Network, theta: Floats, x: Any) -> None:
        from nbflow.cpu.pointwise import build_push

        self.net, self.x = net, x
        self.params = Params(*(np.ascontiguousarray(part) for part in unpack(net, theta)))
        self.push = build_push(net.compiled_cell)
        self.lines, self.gates = len(net.cell_object.states), len(net.cell_object.gates)

    def inputs(self, count: int) -> Any:
        """Return the input for so many states."""
        return np.repeat(self.x, count, axis=0)

    def __call__(self, s: Floats) -> Floats:
        a_in, a_rec = preactivations(self.params, self.inputs(len(s)), s[:, 0])
        none = np.zeros((len(s), 0, self.gates, self.net.n_hidden)), np.zeros((len(s), 0, *s.shape[1:]))
        found = np.zeros_like(s)
        self.push(self.net.cell_settings, a_in, a_rec, s, *none, found, none[1].copy())
        return found

    def jacobian(self, s: Floats) -> Floats:
        """Return ds'/ds (S*H, S*H) at a state (S, H)."""
        d_rec, d_s = partials(self.net, self.params, self.inputs(1), s[None])
        lines, hidden = s.shape
        found = np.zeros((lines, hidden, lines, hidden))
        np.einsum("sili->sli", found)[:] = d_s[:, 0]  # the diagonals, as a view
        found[:, :, 0] += np.einsum("sgi,jgi->sij", d_rec[:, 0], self.params.w_rec)
        return found.reshape(s.size, s.size)

    def solve(self, start: Floats, tolerance: float) -> Floats | None:
        """Return a fixed point that this start leads to, or None."""
        from scipy.optimize import root

        shape, one = start.shape, np.eye(start.size)
        with np.errstate(over="ignore", invalid="ignore"):
            found = root(
                lambda s: (self(s.reshape(1, *shape)) - s.reshape(1, *shape)).ravel(), start.ravel(), method="hybr",
                jac=lambda s: self.jacobian(s.reshape(shape)) - one, options={"xtol": 1e-13},
            ).x.reshape(shape)  # fmt: skip
            moved = np.abs(self(found[None])[0] - found).max()
        return found if moved <= tolerance * max(1.0, np.abs(found).max()) else None


def _gathered(step: _Step, solved: list[Floats], starts: int, apart: float) -> FixedPoints:
    """Return solutions, those that are near each other as one."""
    kept: list[Floats] = []
    counts: list[int] = []
    for s in solved:
        near = [k for k, other in enumerate(kept) if np.abs(s - other).max() <= apart * max(1.0, np.abs(other).max())]
        if near:
            counts[near[0]] += 1
        else:
            kept.append(s)
            counts.append(1)
    order = np.argsort(-np.array(counts, int), kind="stable")
    states = np.array([kept[k] for k in order]).reshape(-1, step.lines, step.net.n_hidden)
    size = states.shape[1] * states.shape[2]
    eigenvalues = np.zeros((len(states), size), complex)
    for row, s in zip(eigenvalues, states, strict=True):
        values = np.linalg.eigvals(step.jacobian(s))
        row[:] = values[np.argsort(-np.abs(values), kind="stable")]
    moved = step(states) - states
    return FixedPoints(
        states, eigenvalues, np.abs(moved).max(axis=(1, 2), initial=0.0), np.array(counts, int)[order],
        starts - len(solved),
    )  # fmt: skip
