"""Clipping a gradient, by any rule and any answer to one that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from naive.arrays import Array, cosine, length, rescale
from naive.parameters import slices


class Clipped(NamedTuple):
    """A clipped gradient and its report; fraction counts the entries of every group that was rescaled or replaced."""

    d_theta: Array
    norm: float
    clipped_norm: float
    fraction: float
    cosine: float
    finite: bool


def groups(rule: str, blocks: dict[str, tuple[int, ...]] | None, P: int) -> Iterator[Array]:
    """Yield the indices into theta of each group of entries whose norm the rule measures.

    norm, normalize, random, smoothed, and layer, of one: all. block: each array. unit: the column of each (gate, unit)
    of each weight array; a bias array is one group, as a vector is in the code of Brock et al. 2021.
    """
    if rule in ("norm", "normalize", "random", "smoothed", "layer"):
        yield np.arange(P)
        return
    if blocks is None:
        raise ValueError(f"the rule {rule!r} needs blocks")
    for name, where in slices(blocks).items():
        index = np.arange(P)[where]
        if index.size == 0:
            continue
        if rule == "unit" and name.startswith("w_"):
            yield from index.reshape(blocks[name][0], -1).T
        else:
            yield index


def _clip_finite(
    rule: str,
    d: Array,
    threshold: float,
    theta: Array | None,
    blocks: dict[str, tuple[int, ...]] | None,
    direction: Array | None,
) -> tuple[Array, Array]:
    """Clip a finite gradient; return it, in float64, and which entries were in a clipped group."""
    new, hit = d.astype(np.float64), np.zeros(d.size, dtype=bool)
    if rule == "value":
        return np.minimum(np.maximum(new, -threshold), threshold), np.abs(new) > threshold
    if rule not in ("norm", "layer", "block", "unit", "normalize", "random", "smoothed"):
        raise ValueError(f"no rule is called {rule!r}")
    for index in groups(rule, blocks, d.size):
        g, limit = d[index].astype(np.float64), threshold
        if rule == "unit":
            if theta is None:
                raise ValueError("the rule 'unit' needs theta")
            limit = threshold * max(length(theta[index]), 1e-3)
        if rule in ("normalize", "smoothed"):
            hit[index] = bool(g.any())
        else:
            hit[index] = length(g) > limit
        if hit[index].any() and rule == "smoothed":
            limit = limit * (length(g) / (limit + length(g)))
        if hit[index].any():
            new[index] = _step(threshold, direction) if rule == "random" else rescale(g, limit)
    return new, hit


def _step(threshold: float, direction: Array | None) -> Array:
    """Return a step of size threshold along the given unit vector (book section 10.11.1)."""
    if direction is None:
        raise ValueError("a random step needs direction")
    return threshold * np.asarray(direction, dtype=np.float64)


def _clip_nonfinite(
    policy: str,
    d: Array,
    threshold: float,
    theta: Array | None,
    blocks: dict[str, tuple[int, ...]] | None,
    direction: Array | None,
) -> Array:
    """Return what stands in for a gradient with NaN or Inf in it, untouched by the rule afterwards."""
    if policy == "random":
        return _step(threshold, direction)
    if policy == "skip":
        return np.zeros(d.size)
    if policy == "keep":
        return d
    if policy == "raise":
        where = slices(blocks) if blocks else {"theta": slice(None)}
        bad = [name for name, part in where.items() if not np.isfinite(d[part]).all()]
        raise FloatingPointError(f"the gradient of {', '.join(bad)} is not finite")
    if policy == "shrink":
        if theta is None or blocks is None:
            raise ValueError("the policy 'shrink' needs theta and blocks")
        new, part = np.zeros(d.size), slices(blocks)["w_rec"]
        new[part] = 0.02 * np.float64(theta[part])
        return new
    raise ValueError(f"no policy is called {policy!r}")


def clip(
    rule: str,
    d: Array,
    threshold: float,
    nonfinite: str = "random",
    theta: Array | None = None,
    blocks: dict[str, tuple[int, ...]] | None = None,
    direction: Array | None = None,
    step: float | None = None,
) -> Clipped:
    """Clip the gradient d (P,), in its own dtype, with norms in float64, strictly above the threshold.

    norm: Pascanu 2013 alg. 1, book eq. 10.48-10.49; value: book, after Mikolov 2012; block: norm per array of `blocks`
    (name -> shape); unit: Brock et al. 2021, against threshold * max(||w_unit||, 1e-3); normalize: always; smoothed:
    always, to v ||g|| / (v + ||g||) (Gorbunov et al. 2024, algorithm 1); random: the book's step along `direction`, as
    long as the threshold, or as `step` says. The policy `nonfinite` comes first: `zero` drops the bad entries and clips
    the rest, the others answer by themselves (`shrink`: Pascanu's code).
    """
    d = np.asarray(d)
    if direction is not None and step is not None:
        direction = np.asarray(direction, dtype=np.float64) * (step / threshold)
    finite = bool(np.isfinite(d).all())
    if finite or nonfinite == "zero":
        bad = ~np.isfinite(d)
        new, hit = _clip_finite(rule, np.where(bad, 0, d).astype(d.dtype), threshold, theta, blocks, direction)
        hit = hit | bad
    else:
        new = _clip_nonfinite(nonfinite, d, threshold, theta, blocks, direction)
        hit = np.full(d.size, nonfinite != "keep")
    new = new.astype(d.dtype)
    return Clipped(new, length(d), length(new), float(hit.mean()), cosine(d, new), finite)
