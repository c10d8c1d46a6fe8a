"""Why a network does not learn long lags: what becomes of its gradient on the way back, in one record and in words."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, overload

import numpy as np

from nbflow import _check
from nbflow.diagnostics._diagnosis_words import words_of, words_of_stack
from nbflow.diagnostics._gradient_flow import trace
from nbflow.diagnostics.lags import gains_by_lag, profile
from nbflow.diagnostics.lyapunov import lyapunov_exponents
from nbflow.diagnostics.saturation import saturation
from nbflow.diagnostics.singular_values import jacobian_singular_values
from nbflow.diagnostics.spectrum import recurrent_spectrum
from nbflow.gradients.gradient import gradient
from nbflow.model import _arguments
from nbflow.model._step import last_step
from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack
from nbflow.records import (
    Batch,
    Diagnosis,
    Floats,
    Gradient,
    LagProfile,
    Spectrum,
    StackDiagnosis,
)
from nbflow.statistics import mean_interval
from nbflow.training.run import Run

# A gradient of which less than this is left has vanished; one that is its inverse times as long has exploded.
LOST = 0.01


@overload
def diagnose(
    net: Network, theta: Floats, batch: Batch, *, run: Run | None = None, state: Floats | None = None, k: int = 6,
    sequences: int = 8,
) -> Diagnosis: ...  # fmt: skip
@overload
def diagnose(
    net: Stack, theta: Floats, batch: Batch, *, run: Run | None = None, state: Any = None, k: int = 6,
    sequences: int = 8,
) -> StackDiagnosis: ...  # fmt: skip
def diagnose(
    net: Model, theta: Floats, batch: Batch, *, run: Run | None = None, state: Any = None, k: int = 6,
    sequences: int = 8,
) -> Diagnosis | StackDiagnosis:  # fmt: skip
    """Tell what becomes of the gradient of a trained network on its way back, and why.

    One call for `gains_by_lag`, `lyapunov_exponents`, `jacobian_singular_values`, `saturation` and
    `recurrent_spectrum`, with a summary: `print(nf.diagnose(net, theta, batch))`. `nbflow.plot.diagnosis` draws it.
    Give a batch whose lags are those in question: with a loss at the last step, sequences of 200 steps show 200 lags.

    Parameters
    ----------
    net : Network or Stack
        Of a stack every layer is looked at, and the gradient of all of them.
    theta : array of shape (P,)
    batch : Batch
        Not seen in training, at best; some 20 sequences are enough.
    run : Run, optional
        What `nbflow.train` returned: the part of its updates that were clipped is reported too.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default; of a stack a tuple, one for each layer.
    k : int
        How many exponents and singular values, at most S * H.
    sequences : int
        Of how many sequences, the longest ones; they take most of the time.

    Returns
    -------
    Diagnosis, or StackDiagnosis of a stack

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, theta is that of several replicas, no step has weight, or states of a layer below
        another are not finite.

    Examples
    --------
    A linear network that keeps 0.9 of everything at each step:

    >>> import nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> nf.unpack(net, theta).w_rec[:] *= 0.9
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=9, length=100, dtype="float64")
    >>> found = nf.diagnose(net, theta, batch)
    >>> found.verdict, round(found.kept, 6), found.half, found.hundredth
    ('vanishes', 0.9, 7, 44)
    >>> print(str(found).splitlines()[0])
    The gradient vanishes: a step back leaves 0.9 of its length, 1/2 after 7 steps, 1/100 after 44, 2.7e-05 at lag 100.
    """
    if isinstance(net, Stack) and net.bidirectional:
        _arguments.network(net)  # refuses it by name
    checked = _arguments.computation(net, theta, batch, takes=_arguments.model)
    if not checked.single:
        raise ValueError(f"theta has shape {theta.shape}; expected ({net.size},). Take one replica: theta[0].")
    k = _check.count("k", k)
    longest, steps = _longest(batch.weights, _check.count("sequences", sequences))
    whole = gradient(net, theta, batch, state=state)
    if isinstance(net, Stack):
        found = _of_stack(net, theta, batch, state, whole, _Look(k, longest, steps, float(whole.loss), None))
        found = found._replace(clipped=_clipped(run))
        return found._replace(words=words_of_stack(found, net))
    look = _Look(k, longest, steps, float(whole.loss), _clipped(run))
    return _of_network(net, theta, batch, state, look, gains_by_lag(net, theta, batch, state=state), whole.d_theta)


class _Look(NamedTuple):
    """How closely a network is looked at, and what is known already."""

    k: int  #: how many exponents and singular values, if there are so many
    longest: Any  #: of which sequences
    steps: int  #: over how many steps
    loss: float
    clipped: float | None


def _of_network(
    net: Network, theta: Floats, batch: Batch, state: Any, look: _Look, lags: LagProfile, d_theta: Floats
) -> Diagnosis:
    k = min(look.k, len(net.cell_object.states) * net.n_hidden)
    inputs = np.ascontiguousarray(batch.inputs[: look.steps, look.longest])
    first = None if state is None else np.ascontiguousarray(state[look.longest])
    found = Diagnosis(
        words="",
        **_of_lags(lags, look.loss),
        norm=_length(d_theta),
        exponents=lyapunov_exponents(net, theta, inputs, k=k, state=first),
        singular_values=jacobian_singular_values(net, theta, inputs, k=k, state=first),
        steps=look.steps,
        saturation=saturation(net, theta, batch, state=state) if net.cell_object.ranges else None,
        spectrum=recurrent_spectrum(net, theta),
        clipped=look.clipped,
    )
    return found._replace(words=words_of(found, net.cell_object.carries))


def _length(d_theta: Floats) -> float:
    return float(np.linalg.norm(d_theta.astype(np.float64)))


def _of_lags(lags: LagProfile, loss: float) -> dict[str, Any]:
    """Return what norms by lag say, by the names of a diagnosis."""
    left = _left(lags)
    reached = left[~np.isnan(left)]
    with np.errstate(divide="ignore"):
        kept = float(np.exp(np.log(reached[-1]) / max(len(reached) - 1, 1)))
    return {"verdict": _verdict(reached, loss), "kept": kept, "left": left, "half": _first_below(left, 0.5),
            "hundredth": _first_below(left, LOST), "loss": loss, "lags": lags}  # fmt: skip


# ------------------------------------------------------------------------- stacks


def _of_stack(net: Stack, theta: Floats, batch: Batch, state: Any, whole: Gradient, look: _Look) -> StackDiagnosis:
    """Return the diagnosis of every layer, which is a network driven by the one below, and of all of them."""
    seen, inputs, layers = trace(net, theta, batch, state=state), batch.inputs, []
    parts = zip(net.layers, net.split(theta), net.split(whole.d_theta), seen, strict=True)
    for number, (layer, part, d_part, flow) in enumerate(parts):
        alone, own, driven = _alone(layer, part, batch, inputs)
        lags = profile(flow.delta_norm, flow.gain, batch.weights)
        first = None if state is None else state[number]
        layers.append(_of_network(alone, own, driven, first, look, lags, d_part))
        if number < len(net.layers) - 1:
            inputs = _handed(flow.states[1:, :, 0], batch.weights, number)
    lags = _joint_lags(net, theta, batch, state)
    return StackDiagnosis(
        words="",
        **_of_lags(lags, look.loss),
        norm=_length(whole.d_theta),
        exponents=_joint_exponents([layer.exponents for layer in layers], look.k),
        layers=tuple(layers),
        clipped=None,
    )


def _alone(layer: Network, theta: Floats, batch: Batch, inputs: Any) -> tuple[Network, Floats, Batch]:
    """Return a layer as a network of its own with what drives it; below the top with an output that nobody asks for."""
    if layer.n_out:
        return layer, theta, batch._replace(inputs=inputs)
    alone = Network(layer.cell, layer.n_in, layer.n_hidden, 1, "square", layer.dtype)
    no_output = np.zeros(alone.size - layer.size, layer.dtype)
    targets = np.zeros((*batch.weights.shape, 1), layer.dtype)
    return alone, np.concatenate([theta, no_output]), Batch(inputs, targets, batch.weights)


def _handed(h: Floats, weights: Any, layer: int) -> Floats:
    """Return h of every step, the inputs of the layer above; 0 after the end of a sequence."""
    here = np.arange(len(h))[:, None] < last_step(weights)
    handed = np.ascontiguousarray(np.where(here[..., None], h, 0))
    if not np.isfinite(handed).all():
        raise ValueError(
            f"batch drives layer {layer} to states that are not finite; expected finite ones, as they are the inputs "
            f"of the layer above. Look at them and at the weights: nbflow.trace."
        )
    return handed


def _joint_lags(net: Stack, theta: Floats, batch: Batch, state: Any) -> LagProfile:
    """Return the norms over all layers of the gradient that comes back from each sequence's last step, by lag."""
    last = np.arange(len(batch.weights))[:, None] == last_step(batch.weights) - 1
    ends = batch._replace(weights=np.where(last, batch.weights, 0).astype(net.dtype))
    each = [flow.delta_norm.astype(np.float64) for flow in trace(net, theta, ends, state=state)]
    norms = functools.reduce(np.hypot, each)
    with np.errstate(invalid="ignore", divide="ignore"):
        return profile(norms, norms[:-1] / norms[1:], batch.weights)


def _joint_exponents(each: list[Spectrum], k: int) -> Spectrum:
    """Return the largest exponents of layers of which none sees those above: of a triangular Jacobian its blocks'."""
    values = -np.sort(-np.concatenate([spectrum.values for spectrum in each], axis=1), axis=1)[:, :k]
    return Spectrum(values, *mean_interval(values.T)[:3])


def _longest(weights: Any, sequences: int) -> tuple[Any, int]:
    """Return which sequences are the longest, and how many steps all of these have."""
    last = last_step(weights)
    order = np.argsort(-last, kind="stable")[:sequences]
    chosen = np.sort(order[last[order] > 0])
    if not chosen.size:
        raise ValueError("weights are all 0; expected a step that counts. Give a batch with a loss.")
    return chosen, int(last[chosen].min())


def _left(lags: LagProfile) -> Floats:
    """Return the products of gains up to each lag: 0 where every sequence that goes so far has nothing left."""
    with np.errstate(over="ignore"):
        found = np.concatenate([[1.0], np.cumprod(lags.gain.mean)])
    there = (~np.isnan(lags.norms)).sum(axis=-1)
    found[(there > 0) & (lags.zeros == there)] = 0.0
    return found


def _first_below(left: Floats, part: float) -> int | None:
    below = np.flatnonzero(left < part)
    return int(below[0]) if below.size else None


def _verdict(reached: Floats, loss: float) -> str:
    """Return what becomes of the gradient, of what is left of it at the lags of which that is known."""
    last = reached[-1]
    if not np.isfinite(loss) or len(reached) == 1:
        return "is not finite"
    if last < 0.5:
        return "vanishes" if last < LOST else "fades"
    return "stays" if last <= 2 else "grows" if last <= 1 / LOST else "explodes"


def _clipped(run: Any) -> float | None:
    """Return the part of a run's updates that were clipped."""
    if run is None:
        return None
    if not isinstance(run, Run):
        raise TypeError(f"run is {_check.said(run)}; expected what nbflow.train returned. Leave it out, or give that.")
    rows = run.history.get("clipped")
    if not rows or "threshold" not in run.history:
        return None
    if isinstance(rows[0], list):
        raise ValueError(
            f"run is of {len(rows[0])} replicas; expected that of one network. Leave it out, or train that alone."
        )
    apart = np.diff([0, *run.history["update"]])
    return float(np.average(rows, weights=np.maximum(apart, 1)))
