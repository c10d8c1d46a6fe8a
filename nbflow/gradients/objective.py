"""A loss as scipy.optimize wants it: a function of one flat vector, with its gradient and its Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.gradients._choices import check_flow
from nbflow.gradients.gradient import gradient
from nbflow.gradients.vector_products import hvp
from nbflow.gradients.workspace import workspace
from nbflow.model import _arguments, _batch
from nbflow.model.network import Network
from nbflow.records import Batch, Floats, Flow


class Objective:
    """The loss of a batch (+ alpha * Omega) as a function of theta; made by `nbflow.objective`."""

    def __init__(self, net: Network, batch: Batch, flow: Flow | None) -> None:
        self.net, self.batch, self.flow = net, batch, flow
        self.alpha = 0.0 if flow is None else float(check_flow(flow, 1, net.dtype)[1][0])
        self._space = workspace(net, batch)

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        """Return the value and the gradient, in double precision, at theta (P,)."""
        out = gradient(self.net, self._point(theta), self.batch, flow=self.flow, workspace=self._space)
        value = out.loss if self.flow is None else out.loss + self.alpha * out.omega
        return float(value), out.d_theta.astype(np.float64)

    def hessp(self, theta: Floats, direction: Floats) -> Floats:
        """Return the Hessian at theta times a vector; of the loss alone, so not with a flow."""
        if self.flow is not None:
            raise ValueError(
                "flow is given; expected none, for Omega's Hessian takes third derivatives. Minimise without hessp."
            )
        moved = hvp(self.net, self._point(theta), self.batch, self._point(direction), workspace=self._space)
        return moved.astype(np.float64)

    def _point(self, theta: Floats) -> Any:
        return np.asarray(theta).astype(self.net.scalar)


def objective(net: Network, batch: Batch, flow: Flow | None = None) -> Objective:
    """Make the loss of a batch a function that scipy.optimize.minimize takes.

    Parameters
    ----------
    net : Network
        In float64, or a line search will stop at what float32 resolves.
    batch : Batch
        Without R.
    flow : Flow, optional
        Add alpha * Omega; with derivative "exact", or value and gradient do not belong together.

    Returns
    -------
    Objective
        To be called with theta, for `jac=True`; its method `hessp` is what "trust-ncg" and its like want. It has a
        workspace, so it is one thread's at a time.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> from scipy.optimize import minimize
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=8, length=10, dtype="float64")
    >>> loss = nf.objective(net, batch)
    >>> minimize(loss, theta, jac=True, method="L-BFGS-B", options={"maxiter": 60}).fun < 0.1
    True
    """
    _arguments.network(net)
    _batch.triple(batch)
    if np.ndim(batch[2]) != 2:
        raise ValueError(f"weights has shape {np.shape(batch[2])}; expected (T, B). Take the batch of one replica.")
    return Objective(net, batch, flow)
