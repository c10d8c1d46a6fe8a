"""Lyapunov exponents of a driven network: the mean rates at which its directions grow or shrink."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.diagnostics.singular_values import at_most, in_double
from nbflow.gradients.workspace import Buffers, shape_of
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import Floats, Spectrum
from nbflow.statistics import mean_interval


def lyapunov_exponents(
    net: Network,
    theta: Floats,
    inputs: Any,
    k: int = 6,
    every: int = 1,
    *,
    discard: int = 0,
    state: Floats | None = None,
) -> Spectrum:
    """Compute the k largest Lyapunov exponents along every sequence.

    An orthonormal basis is pushed through `every` steps and made orthonormal again by QR; the logarithms of the
    diagonal of R, added and divided by the steps, are the exponents (Benettin et al. 1980; Engelken, Wolf and Abbott
    2023, for recurrent networks). In double precision.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    k : int
        1 to S * H.
    every : int
        Steps between two QR decompositions. More are faster; too many, and the weaker directions drown in rounding:
        keep `every` times the spread of the exponents below 20 or so.
    discard : int
        So many first steps turn the basis without being counted: it begins as k coordinate axes.
    state : array of shape (B, S, H), optional
        The first state, zeros by default.

    Returns
    -------
    Spectrum
        In nats a step; -inf for a direction that is lost altogether.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=4, n_out=4)
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> nf.unpack(net, theta).w_rec[:] *= 0.5
    >>> inputs = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=3, length=50).inputs
    >>> nf.lyapunov_exponents(net, theta, inputs, k=2).mean.round(3)  # log 0.5
    array([-0.693, -0.693])
    """
    net, theta, inputs, state = in_double(net, theta, inputs, state)
    steps, batch = inputs.shape[:2]
    lines, hidden = len(net.cell_object.states), net.n_hidden
    k, every = at_most("k", k, lines * hidden), min(_check.count("every", every), steps)
    discard = _check.count("discard", discard, 0)
    if discard >= steps:
        raise ValueError(f"discard is {discard}; expected less than T = {steps}. Discard fewer.")
    carry = _Carry(net, theta, np.repeat(inputs, k, axis=1), every)
    basis: Floats = np.tile(np.eye(lines * hidden, k), (batch, 1, 1))
    now: Floats = np.zeros((batch, lines, hidden)) if state is None else state
    grown, cuts = np.zeros((batch, k)), sorted({*range(discard, steps, every), *range(discard, 0, -every), 0, steps})
    with np.errstate(divide="ignore"):
        for start, stop in itertools.pairwise(cuts):
            now, basis, sizes = carry.through(start, stop, now, basis)
            if start >= discard:
                grown += np.log(sizes)
    exponents = -np.sort(-grown / (steps - discard), axis=1)
    return Spectrum(exponents, *mean_interval(exponents.T)[:3])


class _Carry:
    """States and k tangents of each sequence, carried through a few steps: a batch of B * k."""

    def __init__(self, net: Network, theta: Floats, inputs: Any, every: int) -> None:
        self.inputs = inputs
        self.checked = _arguments.inputs_only(net, theta, inputs[:every])
        self.buffers = Buffers(net, shape_of(self.checked))

    def through(self, start: int, stop: int, state: Floats, basis: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the states (B, S, H), an orthonormal basis (B, S*H, k) and |diag R| (B, k) after some steps."""
        from nbflow.cpu.engine import carry

        (batch, lines, hidden), k = state.shape, basis.shape[2]
        inputs = np.ascontiguousarray(self.inputs[None, start:stop])
        checked = self.checked._replace(inputs=inputs, weights=self.checked.weights[:, : stop - start])
        ends, moved = carry(
            self.buffers, checked, np.repeat(state, k, axis=0)[None],
            basis.transpose(0, 2, 1).reshape(1, batch * k, lines, hidden),
        )  # fmt: skip
        q, r = np.linalg.qr(moved.reshape(batch, k, -1).transpose(0, 2, 1))
        return ends[0, ::k], q, np.abs(np.diagonal(r, axis1=1, axis2=2))
