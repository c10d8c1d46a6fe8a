"""The public boundary: what drivers check in the same way, before anything reaches a kernel.

One grammar of messages: the name, what came, what is wanted, the remedy. What comes out is what kernels trust: the
right dtype, C-ordered, with R in front, every index in range.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nbflow.records import Floats

if TYPE_CHECKING:
    from nbflow.model.network import Network


LARGEST = 2**63 - 1
# Between these a number is finite, and held by every dtype.
EASY = (1e-30, 1e30)
MOST_REPLICAS = 2**24  # as many as the counter tells apart
SHARE = (
    "Replicas have data of their own; to share a batch write np.broadcast_to(array, (R, *array.shape)) of all three."
)


class Checked(NamedTuple):
    """The arguments of a computation, as kernels want them."""

    theta: Floats  #: (R, P)
    inputs: Any  #: (R, T, B, N), or int32 (R, T, B)
    targets: Any  #: (R, T, B, M), or int32 (R, T, B); None where none are needed
    weights: Floats  #: (R, T, B)
    single: bool  #: whether theta came without R


@functools.cache
def _network_type() -> type:
    from nbflow.model.network import Network

    return Network


def network(net: Any) -> None:
    """Refuse what is no Network."""
    if not isinstance(net, _network_type()):
        raise TypeError(f"net is {_said(net)}; expected a Network. Write nbflow.Network(cell, n_in, n_hidden, n_out).")


def _said(value: Any) -> str:
    """Return what a message says of a value: itself, or its type where that would take a page."""
    written = repr(value)
    return written if len(written) <= 50 and "\n" not in written else f"a {type(value).__name__}"


def count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int of at least `least`, and one that kernels can count to."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {_said(value)}; expected an integer of at least {least}. Write int({name}).")
    if value < least:
        raise ValueError(f"{name} is {value}; expected an integer of at least {least}. Give a larger one.")
    if int(value) > LARGEST:
        raise ValueError(f"{name} is about 2**{int(value).bit_length()}; expected less than 2**63. Give a smaller one.")
    return int(value)


def length_range(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Return the smallest and the largest length of an int or of a pair of them."""
    if not isinstance(value, list | tuple):
        return (count(name, value, least),) * 2
    if len(value) != 2:
        raise ValueError(f"{name} is {_said(value)}; expected an int or (smallest, largest). Give one of the two.")
    low, high = (count(name, length, least) for length in value)
    if low > high:
        raise ValueError(f"{name} is {_said(value)}; expected (smallest, largest). Swap them.")
    return low, high


def generator(name: str, value: Any) -> np.random.Generator:
    """Return a source of random numbers, as numpy makes them."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {_said(value)}; expected None, an int of at least 0 or a numpy.random.Generator. "
            f"Write np.random.default_rng(0)."
        ) from None


def float_dtype(name: str, value: Any) -> str:
    """Return the name of a dtype that kernels are compiled for."""
    try:
        found = None if value is None else np.dtype(value)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found != np.float32 and found != np.float64:
        raise ValueError(f"{name} is {_said(value)}; expected float32 or float64. Choose one of the two.")
    return str(found)


def choice(name: str, value: Any, wanted: tuple[str, ...]) -> str:
    """Return `value`, which must be one of `wanted`."""
    if not isinstance(value, str) or value not in wanted:
        raise ValueError(f"{name} is {_said(value)}; expected one of {', '.join(wanted)}. Choose one of these.")
    return str(value)


def per_replica(
    name: str,
    value: Any,
    replicas: int,
    *,
    least: float | None = None,
    above: bool = False,
    finite: bool = False,
    dtype: Any = "float64",
) -> Floats:
    """Return a number, or one number per replica, as a float64 array (R,) of what `dtype` holds, not below `least`."""
    if type(value) is float and EASY[0] < value < EASY[1] and (least is None or value > least):
        return np.full(replicas, value)
    found = _numbers(name, value)
    if found.ndim > 1 or found.size not in (1, replicas):
        raise ValueError(
            f"{name} has shape {found.shape}; expected a number, or one for each of {replicas} replicas. "
            f"Give a float or an array of shape ({replicas},)."
        )
    if np.isnan(found).any():
        raise ValueError(f"{name} is NaN; expected a number. Look where it was computed.")
    if (least is not None and (found < least).any()) or (above and (found == least).any()):
        wanted = f"above {least:g}" if above else f"of at least {least:g}"
        raise ValueError(f"{name} is {found.min():g}; expected a number {wanted}. Give a larger one.")
    if finite and not np.isfinite(found).all():
        raise ValueError(f"{name} is {found.max():g}; expected a finite number. Give a smaller one.")
    with np.errstate(over="ignore", under="ignore"):
        held = found.astype(dtype)
    lost = (np.isinf(held) & np.isfinite(found)) | ((held == 0) & (found != 0))
    if lost.any():
        limits = np.finfo(dtype)
        raise ValueError(
            f"{name} is {found[lost][0]:g}; expected one from {limits.smallest_subnormal:.1e} to {limits.max:.1e} for "
            f"{np.dtype(dtype)}. Scale it, or make the network with dtype='float64'."
        )
    return np.broadcast_to(found.ravel(), (replicas,))


def replica_ids(value: Any, replicas: int) -> Any:
    """Return the numbers (R,) under which replicas draw, 0 to R - 1 for None."""
    if value is None:
        return np.arange(replicas)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"replica_ids is {_said(value)}; expected {replicas} integers. Write list(range({replicas})).")
    found = [count("replica_ids", one, 0) for one in value]
    if len(found) != replicas or max(found) >= MOST_REPLICAS:
        raise ValueError(
            f"replica_ids is {_said(value)}; expected {replicas} integers below 2**24, one for each replica. "
            f"Leave it out for 0 to {replicas - 1}."
        )
    return np.array(found)


def part(name: str, value: Any) -> float:
    """Return a number above 0 and below 1."""
    found = float(per_replica(name, value, 1, least=0.0, above=True)[0])
    if found >= 1:
        raise ValueError(f"{name} is {found:g}; expected a part, above 0 and below 1. Give a smaller one.")
    return found


def _numbers(name: str, value: Any) -> Floats:
    """Return real numbers as float64."""
    try:
        found = np.asarray(float(value) if isinstance(value, numbers.Real) else value)
    except OverflowError:
        raise ValueError(f"{name} is {_said(value)}; expected a number below 1e308. Give a smaller one.") from None
    except (TypeError, ValueError):  # rows of different lengths
        found = np.empty(0, object)
    if isinstance(value, bool | np.ma.MaskedArray) or found.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {_said(value)}; expected a number, or one per replica. Give a float.")
    return found.astype(np.float64)


def array(name: str, value: Any) -> Any:
    """Return `value`, which must be an array, and no kind of array that has other rules of its own."""
    if type(value) is np.ndarray:
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a NumPy array. Write np.asarray({name}).")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a MaskedArray; expected a plain NumPy array. Write {name}.filled(0), and give what is masked "
            f"weight 0."
        )
    if type(value) is not np.memmap:
        raise TypeError(f"{name} is a {type(value).__name__}; expected a plain NumPy array. Write np.asarray({name}).")
    return value


def floats(name: str, value: Any, dtype: str) -> Any:
    """Return `value`, which must be an array of exactly this dtype."""
    array(name, value)
    if value.dtype != dtype:
        real = ".real" if value.dtype.kind == "c" else ""
        raise TypeError(f"{name} has dtype {value.dtype}; expected {dtype}. Write {name}{real}.astype(np.{dtype}).")
    return value


def finite(name: str, value: Any, remedy: str) -> None:
    """Refuse NaN and Inf, and say where the first one is."""
    # Counting takes half the time of `.all()` where arrays are small.
    if np.count_nonzero(np.isfinite(value)) < value.size:
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise ValueError(f"{name} is {value[place]} at {list(place)}; expected finite numbers. {remedy}")


def theta_shape(net: Network, theta: Any, name: str = "theta") -> None:
    """Refuse what is not the parameter vector of `net`, or R of them."""
    network(net)
    floats(name, theta, net.dtype)
    if theta.ndim not in (1, 2) or theta.shape[-1] != net.size:
        raise ValueError(
            f"{name} has shape {theta.shape}; expected ({net.size},) or (R, {net.size}) for {net}. "
            f"Make one by nbflow.init(net, ...)."
        )
    if theta.size == 0:
        raise ValueError(f"{name} has shape {theta.shape}; expected at least one replica. Leave R away for one.")


def blocks(net: Network, params: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Refuse what are no parameters of `net`; return () or (R,)."""
    if not isinstance(params, tuple) or len(params) != len(shapes):
        raise TypeError(
            f"params is {_said(params)}; expected Params of {len(shapes)} blocks. Write nbflow.unpack(net, theta)."
        )
    lead = np.shape(params[-1])[:-1]
    said = "R, " * len(lead)
    for block, (name, shape) in zip(params, shapes.items(), strict=True):
        floats(name, block, net.dtype)
        if block.shape != (*lead, *shape):
            raise ValueError(
                f"{name} has shape {block.shape}; expected ({said}{', '.join(map(str, shape))}). Reshape it."
            )
    return lead


def triple(batch: Any) -> None:
    """Refuse what is no Batch."""
    if not isinstance(batch, tuple) or len(batch) != 3:
        raise TypeError(
            f"batch is a {type(batch).__name__}; expected a Batch(inputs, targets, weights). Write nbflow.Batch(...)."
        )


def settings(own: dict[str, float], given: Any) -> dict[str, float]:
    """Return the settings of an optimizer, its own where none are given."""
    if not isinstance(given, dict):
        raise TypeError(f"settings is {_said(given)}; expected a dict of {', '.join(own) or 'none'}. Write {{}}.")
    unknown = [name for name in given if name not in own]
    if unknown:
        raise ValueError(
            f"settings has {_said(unknown)}; expected some of: {', '.join(own) or 'none'}. Leave the others out."
        )
    for name, value in given.items():
        per_replica(f"settings[{name!r}]", value, 1, finite=True)
    return {**own, **given}


def functions(name: str, value: Any) -> tuple[Any, ...]:
    """Return a sequence of functions."""
    if not isinstance(value, list | tuple) or not all(callable(one) for one in value):
        raise TypeError(f"{name} is {_said(value)}; expected a list of functions. Write {name}=[function].")
    return tuple(value)


def _contiguous(value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value` as kernels read it, a copy only where it lies otherwise."""
    value = np.ascontiguousarray(value)
    return (value if value.flags.aligned else value.copy()).reshape(shape)


def _inputs(net: Network, inputs: Any, lead: tuple[int, ...]) -> Any:
    """Check inputs against the network; return them with dtype int32 for tokens."""
    array("inputs", inputs)
    rank = len(lead)
    said = "R, " * rank
    if inputs.dtype.kind in "iu":
        if inputs.ndim != rank + 2:
            remedy = f"Dense inputs are floats: inputs.astype(np.{net.dtype})."
            if inputs.ndim == 2 and rank == 1:
                remedy = SHARE
            raise ValueError(
                f"inputs has shape {inputs.shape} and dtype {inputs.dtype}; expected tokens of shape ({said}T, B). "
                f"{remedy}"
            )
        _not_empty("inputs", inputs)
        if not _classes(inputs, net.n_in):
            low, high = inputs.min(), inputs.max()
            raise ValueError(
                f"inputs has tokens from {low} to {high}; expected 0 to {net.n_in - 1} (n_in is {net.n_in}). "
                f"Map the tokens to that range, or make the network with n_in={int(high) + 1}."
            )
        return inputs.astype(np.int32, copy=False)
    floats("inputs", inputs, net.dtype)
    if inputs.ndim == rank + 2 and net.n_in == 1:
        raise ValueError(
            f"inputs has shape {inputs.shape}; expected ({said}T, B, 1). Add the channel axis: inputs[..., None]."
        )
    if inputs.ndim != rank + 3 or inputs.shape[-1] != net.n_in:
        remedy = "Add the channel axis: inputs[..., None]." if inputs.ndim == rank + 2 else "Transpose or reshape it."
        if inputs.ndim == 4 and rank == 0:
            remedy = "Inputs with replicas need theta of shape (R, P)."
        if inputs.ndim == 3 and rank == 1:
            remedy = SHARE
        raise ValueError(f"inputs has shape {inputs.shape}; expected ({said}T, B, {net.n_in}). {remedy}")
    _not_empty("inputs", inputs)
    finite("inputs", inputs, "Clean the data.")
    return inputs


def _not_empty(name: str, value: Any) -> None:
    if value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}; expected T, B and R of at least 1. Leave empty batches out.")


def _classes(values: Any, count: int) -> bool:
    """Tell whether all integers are in 0 .. count-1: negative ones are large without their sign."""
    return bool(np.maximum.reduce(values.view(f"{values.dtype.byteorder}u{values.itemsize}"), axis=None) < count)


def _targets(net: Network, targets: Any, weights: Any, lead: tuple[int, ...]) -> Any:
    """Check targets where they have weight; return classes as int32."""
    array("targets", targets)
    loss = net.loss_object
    if loss.classes:
        if targets.dtype.kind not in "iu":
            raise TypeError(
                f"targets has dtype {targets.dtype}; expected integer classes for loss {net.loss!r}. "
                f"Write targets.astype(np.int64)."
            )
        if targets.shape != lead:
            raise ValueError(f"targets has shape {targets.shape}; expected {lead}, one class a step. Reshape it.")
        if not _classes(targets, net.n_out):
            seen = targets[weights != 0]
            if seen.size and not _classes(seen, net.n_out):
                raise ValueError(
                    f"targets has classes from {seen.min()} to {seen.max()} where weights are not 0; "
                    f"expected 0 to {net.n_out - 1} (n_out is {net.n_out}). Give steps without a class weight 0."
                )
        return targets.astype(np.int32, copy=False)
    floats("targets", targets, net.dtype)
    if targets.shape != (*lead, net.n_out):
        raise ValueError(f"targets has shape {targets.shape}; expected {(*lead, net.n_out)}. Reshape it.")
    finite("targets", targets, "Give steps without a target any finite one, and weight 0.")
    if loss.targets is not None:
        seen, (low, high) = targets[weights != 0], loss.targets
        if seen.size and (seen.min() < low or seen.max() > high):
            raise ValueError(
                f"targets has values from {seen.min():g} to {seen.max():g} where weights are not 0; "
                f"expected {low:g} to {high:g} for loss {net.loss!r}. Scale them."
            )
    return targets


def parameters(net: Network, theta: Any, name: str = "theta") -> tuple[Floats, bool]:
    """Return theta as a C-ordered (R, P), and whether it came without R."""
    theta_shape(net, theta, name)
    single = theta.ndim == 1
    return _contiguous(theta, (1, -1) if single else theta.shape), single


def inputs_only(net: Network, theta: Any, inputs: Any) -> Checked:
    """Check the arguments of a forward pass."""
    rows, single = parameters(net, theta)
    lead = () if single else (rows.shape[0],)
    inputs = _inputs(net, inputs, lead)
    if not single:
        _same_replicas("inputs", inputs, rows)
    steps, batch = inputs.shape[len(lead) : len(lead) + 2]
    shape = (rows.shape[0], *inputs.shape[len(lead) :])
    weights = np.zeros((rows.shape[0], steps, batch), net.dtype)
    return Checked(rows, _contiguous(inputs, shape), None, weights, single)


def computation(net: Network, theta: Any, batch: Any) -> Checked:
    """Check the arguments of a gradient."""
    network(net)
    triple(batch)
    rows, single = parameters(net, theta)
    replicas = rows.shape[0]
    rank = 0 if single else 1
    inputs = _inputs(net, batch[0], () if single else (replicas,))
    if not single:
        _same_replicas("inputs", inputs, rows)
    lead = inputs.shape[: rank + 2]
    weights = floats("weights", batch[2], net.dtype)
    if weights.shape != lead:
        raise ValueError(f"weights has shape {weights.shape}; expected {lead}, like the inputs. Reshape it.")
    finite("weights", weights, "Give a step that does not count weight 0.")
    targets = _targets(net, batch[1], weights, lead)
    full = (replicas, *lead[rank:])
    return Checked(
        rows,
        _contiguous(inputs, full + inputs.shape[rank + 2 :]),
        _contiguous(targets, full + targets.shape[rank + 2 :]),
        _contiguous(weights, full),
        single,
    )


def direction(net: Network, value: Any, theta: Any, name: str) -> Floats:
    """Return a direction in the space of theta as a C-ordered (R, P)."""
    theta_shape(net, value, name)
    if value.shape != theta.shape:
        raise ValueError(f"{name} has shape {value.shape}; expected {theta.shape}, as theta has. Pass its own.")
    finite(name, value, "Clean it.")
    return parameters(net, value, name)[0]


def _same_replicas(name: str, value: Any, theta: Any) -> None:
    if value.shape[0] != theta.shape[0]:
        raise ValueError(f"{name} has {value.shape[0]} replicas; expected {theta.shape[0]}, as theta has. {SHARE}")


def state(net: Network, value: Any, checked: Checked, name: str = "state") -> Any:
    """Return a state, or something laid out like one, as (R, B, S, H)."""
    floats(name, value, net.dtype)
    replicas, _, batch = checked.weights.shape
    shape = (batch, len(net.cell_object.states), net.n_hidden)
    wanted = shape if checked.single else (replicas, *shape)
    if value.shape != wanted:
        raise ValueError(f"{name} has shape {value.shape}; expected {wanted}, that is (B, S, H). Pass the last one on.")
    finite(name, value, "Start again from zeros.")
    return _contiguous(value, (replicas, *shape))
