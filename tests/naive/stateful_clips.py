"""Rules of clipping that remember, each as the whole run of one network: gradients in, what is made of them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from naive.arrays import Array, length
from naive.parameters import slices


def adagc(
    ds: Sequence[Array], threshold: float, blocks: dict[str, tuple[int, ...]], *, relative: float = 1.05,
    decay: float = 0.98, warmup: float = 100,
) -> list[Array]:  # fmt: skip
    """Wang et al. 2025, algorithm 1: arrays against their own means, after a warm-up of the joint norm rule."""
    gamma: dict[str, float] = {}
    found = []
    for step, d in enumerate(ds, start=1):
        g = np.array(d, np.float64)
        if step <= warmup:
            g *= min(1.0, threshold / max(length(g), 1e-300))
        for name, where in slices(blocks).items():
            if g[where].size == 0:
                continue
            if step <= warmup:
                gamma[name] = min(gamma.get(name, np.inf), length(g[where]))
            elif gamma.get(name, 0.0) == 0.0:
                gamma[name] = length(g[where])
            else:
                g[where] *= min(1.0, relative * gamma[name] / max(length(g[where]), 1e-300))
                gamma[name] = decay * gamma[name] + (1 - decay) * length(g[where])
        found.append(g)
    return found


def spam(
    ds: Sequence[Array], threshold: float, blocks: dict[str, tuple[int, ...]], *, decay: float = 0.999,
    interval: int = 500, wait: int = 20,
) -> list[Array]:  # fmt: skip
    """Huang et al. 2025, section 3: entries against their own mean squares, which begin anew now and then."""
    found = []
    square = np.zeros(len(ds[0]))
    for step, d in enumerate(ds):
        g = np.array(d, np.float64)
        if step % interval == 0:
            square = np.zeros(g.size)
        if step % interval >= wait:
            spike = (g * g > threshold * square) & (square > 0)
            g[spike] = np.sign(g[spike]) * np.sqrt(threshold * square[spike])
        square = decay * square + (1 - decay) * g * g
        found.append(g)
    return found


def error_feedback(ds: Sequence[Array], threshold: float, blocks: dict[str, tuple[int, ...]]) -> list[Array]:
    """Khirirat et al. 2023, algorithm 1, of one node: h + clip(g - h), which is the next h."""
    found, h = [], np.zeros(len(ds[0]))
    for d in ds:
        away = np.array(d, np.float64) - h
        h = h + min(1.0, threshold / max(length(away), 1e-300)) * away
        found.append(h)
    return found


STATEFUL: dict[str, Callable[..., list[Array]]] = {"adagc": adagc, "spam": spam, "error_feedback": error_feedback}
