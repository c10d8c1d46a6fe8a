"""How a set is cut into parts: shares that add up to 1, and an order drawn from contents and a seed alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

from nbflow import _check


def shares(name: str, value: Any, example: str = "(0.9, 0.05, 0.05)") -> list[float]:
    """Return numbers above 0 that add up to 1."""
    try:
        found = [float(share) for share in value]
    except (OverflowError, TypeError, ValueError) as error:
        raise TypeError(f"{name} is {_check.said(value)}; expected a sequence of numbers, as {example}.") from error
    if not found or not min(found) > 0 or not abs(math.fsum(found) - 1) < 1e-6:
        raise ValueError(
            f"{name} is {_check.said(value)}; expected numbers above 0 that add up to 1. Give them as {example}."
        )
    return found


def drawn(contents: Iterable[bytes], seed: int) -> list[int]:
    """Return the numbers of pieces in an order drawn from what is in them: their names and places have no say."""
    digests = [hashlib.sha256(f"{seed} ".encode() + content).digest() for content in contents]
    return sorted(range(len(digests)), key=lambda k: (digests[k], k))


def cut(order: Sequence[int], *counts: int) -> list[list[int]]:
    """Return so many of an order, so many more, and what is left at last; each part in the pieces' own order."""
    found, first = [], 0
    for count in (*counts, len(order) - sum(counts)):
        found.append(sorted(order[first : first + count]))
        first += count
    return found
