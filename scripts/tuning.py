"""Learning rates that scripts try: of a grid, and beyond its ends until the best one stands between others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

# Between two learning rates, and how many are tried at most.
FACTOR, MOST = 2.0, 9


def best(scores: Iterable[tuple[float, float]]) -> float:
    """Return the learning rate of the lowest mean score, of pairs of both; a score that is not finite is the worst.

    Examples
    --------
    >>> best([(0.1, 3.0), (0.2, 1.0), (0.2, 2.0), (0.4, float("nan"))])
    0.2
    """
    found: dict[float, list[float]] = {}
    for lr, score in scores:
        found.setdefault(lr, []).append(score if math.isfinite(score) else math.inf)
    return min(found, key=lambda lr: sum(found[lr]) / len(found[lr]))


def beyond(tried: Sequence[float], chosen: float) -> list[float]:
    """Return the learning rate beyond the end of those that were tried where the chosen one is that end.

    Examples
    --------
    >>> beyond([1.0, 2.0, 4.0], 4.0), beyond([1.0, 2.0, 4.0], 2.0), beyond([1.0], 1.0)
    ([8.0], [], [0.5, 2.0])
    """
    if len(tried) >= MOST:
        return []
    ends = ((chosen / FACTOR, min(tried)), (chosen * FACTOR, max(tried)))
    return [lr for lr, end in ends if chosen == end]
