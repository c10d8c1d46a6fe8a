"""The public boundary: what drivers check in the same way, before anything reaches a kernel.

One grammar of messages: the name, what came, what is wanted, the remedy. What comes out is what kernels trust: the
right dtype, C-ordered, with R in front, every index in range.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

LARGEST = 2**63 - 1
# Between these a number is finite, and held by every dtype.
EASY = (1e-30, 1e30)
# What runs to 0 may end a hair below it by rounding: as far below, it is 0.
DUST = 1e-12
MOST_REPLICAS = 2**24  # as many as the counter tells apart


def said(value: Any, room: int = 50) -> str:
    """Return what a message says of a value: itself, or its type and length where that would take a page.

    Whatever it is: an object of a user's may raise when it is asked what it is.
    """
    kind = f"{type(value).__name__:.40}"
    try:
        if isinstance(value, int) and not -(2**80) < value < 2**80:
            return f"about {'-' if value < 0 else ''}2**{value.bit_length()}"
        if isinstance(value, str | bytes | list | tuple | dict | set) and len(value) > 4 * room:
            return f"a {kind} of length {len(value)}"
        written = repr(value)
    except Exception:
        return f"a {kind}"
    return written if len(written) <= room and "\n" not in written else f"a {kind}"


def count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int of at least `least`, and one that kernels can count to."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {said(value)}; expected an integer of at least {least}. Write int({name}).")
    if value < least:
        raise ValueError(f"{name} is {said(value)}; expected an integer of at least {least}. Give a larger one.")
    if int(value) > LARGEST:
        raise ValueError(f"{name} is about 2**{int(value).bit_length()}; expected less than 2**63. Give a smaller one.")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return a plain bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {said(value)}; expected True or False. Choose one.")
    return bool(value)


def index(name: str, value: Any) -> int:
    """Return an index of draws, one word."""
    found = count(name, value, 0)
    if found >= 2**32:
        raise ValueError(f"{name} is {found}; expected less than 2**32. Give a smaller one.")
    return found


def length_range(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Return the smallest and the largest length of an int or of a pair of them."""
    if not isinstance(value, list | tuple):
        return (count(name, value, least),) * 2
    if len(value) != 2:
        raise ValueError(f"{name} is {said(value)}; expected an int or (smallest, largest). Give one of the two.")
    low, high = (count(name, length, least) for length in value)
    if low > high:
        raise ValueError(f"{name} is {said(value)}; expected (smallest, largest). Swap them.")
    return low, high


def generator(name: str, value: Any) -> np.random.Generator:
    """Return a source of random numbers, as numpy makes them."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return np.random.default_rng(value)
    except Exception:  # NumPy's own message asks an object what it is
        raise TypeError(
            f"{name} is {said(value)}; expected None, an int of at least 0 or a numpy.random.Generator. "
            f"Write np.random.default_rng(0)."
        ) from None


def float_dtype(name: str, value: Any) -> str:
    """Return the name of a dtype that kernels are compiled for."""
    try:
        found = None if value is None else np.dtype(value)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found != np.float32 and found != np.float64:
        raise ValueError(f"{name} is {said(value)}; expected float32 or float64. Choose one of the two.")
    return str(found)


def choice(name: str, value: Any, wanted: tuple[str, ...]) -> str:
    """Return `value`, which must be one of `wanted`."""
    if not isinstance(value, str) or value not in wanted:
        raise ValueError(f"{name} is {said(value)}; expected one of {', '.join(wanted)}. Choose one of these.")
    return str(value)


def per_replica(
    name: str,
    value: Any,
    replicas: int,
    *,
    least: float | None = None,
    above: bool = False,
    most: float | None = None,
    finite: bool = False,
    dtype: Any = "float64",
) -> Floats:
    """Return a number, or one number per replica, as a float64 array (R,) of what `dtype` holds, `least` to `most`."""
    if type(value) is float and EASY[0] < value < EASY[1] and (least is None or value > least) and most is None:
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
    if most is not None and (found > most).any():
        raise ValueError(
            f"{name} is {found.max():g}; expected a number from {least or 0:g} to {most:g}. Give a smaller one."
        )
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


def replica_ids(value: Any, replicas: int, name: str = "replica_ids") -> Any:
    """Return the numbers (R,) under which replicas draw, 0 to R - 1 for None."""
    if value is None:
        return np.arange(replicas)
    if isinstance(value, str) or not isinstance(value, Iterable) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"{name} is {said(value)}; expected {replicas} integers. Write list(range({replicas})).")
    found = [count(name, one, 0) for one in value]
    if len(found) != replicas or max(found) >= MOST_REPLICAS:
        raise ValueError(
            f"{name} is {said(value)}; expected {replicas} integers below 2**24, one for each replica. "
            f"{'Leave it out' if name == 'replica_ids' else f'Write {name}={replicas}'} for 0 to {replicas - 1}."
        )
    return np.array(found)


def part(name: str, value: Any) -> float:
    """Return a number above 0 and below 1."""
    found = float(per_replica(name, value, 1, least=0.0, above=True)[0])
    if found >= 1:
        raise ValueError(f"{name} is {found:g}; expected a part, above 0 and below 1. Give a smaller one.")
    return found


def line(name: str, value: Any) -> Floats:
    """Return a number (), or one for each unit (H,), as float64."""
    found = _numbers(name, value, "one for each unit")
    if found.ndim > 1 or not found.size:
        raise ValueError(
            f"{name} has shape {found.shape}; expected a number, or one for each unit. Give a float or an array of "
            f"shape (H,)."
        )
    return found


def _numbers(name: str, value: Any, each: str = "one per replica") -> Floats:
    """Return real numbers as float64."""
    try:
        found = np.asarray(float(value) if isinstance(value, numbers.Real) else value)
    except OverflowError:
        raise ValueError(f"{name} is {said(value)}; expected a number below 1e308. Give a smaller one.") from None
    except (TypeError, ValueError):  # rows of different lengths
        found = np.empty(0, object)
    if isinstance(value, bool | np.ma.MaskedArray) or found.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {said(value)}; expected a number, or {each}. Give a float.")
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


def settings(own: dict[str, float], given: Any, limits: Any = None, dtype: str = "float64") -> dict[str, float]:
    """Return the settings of an optimizer, its own where none are given; `limits` hold for them in the dtype."""
    if not isinstance(given, dict):
        raise TypeError(f"settings is {said(given)}; expected a dict of {', '.join(own) or 'none'}. Write {{}}.")
    known_settings(own, given)
    checked = {name: per_replica(f"settings[{said(name)}]", value, 1, finite=True) for name, value in given.items()}
    found = {**own, **{name: float(value[0]) for name, value in checked.items()}}
    for name, limit in (limits or {}).items():
        within(f"settings[{said(name)}]", found[name], limit, f"The usual one is {own[name]:g}.", dtype)
    return found


def known_settings(own: Mapping[str, Any], given: Iterable[Any], remedy: str = "Leave the others out.") -> None:
    """Refuse names of settings that are none of its own."""
    unknown = [name for name in given if name not in own]
    if unknown:
        meant = difflib.get_close_matches(f"{unknown[0]!s:.40}", own, 1)
        remedy = f"Write {meant[0]}." if meant else remedy
        raise ValueError(f"settings has {said(unknown)}; expected some of: {', '.join(own) or 'none'}. {remedy}")


def within(name: str, value: float, limit: tuple[float | None, float], remedy: str, dtype: str = "float64") -> None:
    """Refuse what is not, in the dtype, from the least number (None: above 0) to below the other one."""
    least, below = limit
    held = float(np.dtype(dtype).type(value))
    if not ((held > 0 if least is None else held >= least) and held < below):
        low = "above 0" if least is None else f"at least {least:g}"
        high = f" and below {below:g}" if below < math.inf else ""
        raise ValueError(f"{name} is {said(value)}, in {dtype} {held:g}; expected a number {low}{high}. {remedy}")


def functions(name: str, value: Any) -> tuple[Any, ...]:
    """Return a sequence of functions."""
    if not isinstance(value, list | tuple) or not all(callable(one) for one in value):
        raise TypeError(f"{name} is {said(value)}; expected a list of functions. Write {name}=[function].")
    return tuple(value)
