"""Clips of whole gradients: the rule, then what takes the place of a gradient that is not finite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow._load import load
from nbflow.cpu.clip import build_clip, build_span_clip
from nbflow.cpu.clip_by_block import build_clip_by_block
from nbflow.cpu.direction import build_normals
from nbflow.cpu.report import (
    CLIPPED_NORM,
    CLIPPED_SCALE,
    COLUMNS,
    ENDLESS,
    ENTRIES,
    FINITE,
    INNER,
    SCALE,
    SHRUNK,
    where_not_finite,
)
from nbflow.model import _layout as layout
from nbflow.model.stack import Model
from nbflow.records import AnyRule, Clip, Floats, Rule


def clip(
    net: Model, how: Clip, rows: Floats, threshold: Floats, theta: Floats | None, draw_seed: Callable[[], int]
) -> tuple[Floats, Floats, dict[int, Any]]:
    """Return gradients (R, P) clipped, the report, and what it says of the mended ones, by replica."""
    clipper = Clipper(net, how, rows.shape[0])
    out = np.empty_like(rows)
    clipper.apply(rows, out, threshold, theta)
    if clipper.needs_mending():
        clipper.mend(rows, out, threshold, theta, draw_seed(), 0)
    return out, clipper.report, clipper.mended


class Clipper:
    """A compiled rule with room for its report; a training keeps one.

    Attributes
    ----------
    report : array (R, columns of `nbflow.cpu.report`)
    held : bool array (R, P), or None
        What no random step and no replacement moves; the gradients come with 0 there.
    mended : dict
        Norm and changed part of what took the place of a gradient that was not finite, by replica.
    stands : bool array (R,)
        Where that is 0: no step is taken there, whatever the optimizer would make of a gradient of 0.
    lengths : array (R,), or None
        Of random steps, where they are not the thresholds.
    """

    def __init__(self, net: Model, how: Clip, replicas: int, replica_ids: Any = None, held: Any = None) -> None:
        self.net, self.how, self.held = net, how, held
        self.ids = range(replicas) if replica_ids is None else replica_ids  # under which random steps are drawn
        self.rule: AnyRule = load("clips", how.rule)
        self.dtype = net.scalar
        self.lengths = None if how.length is None else np.broadcast_to(how.length, replicas).astype(self.dtype)
        self._compile()
        self.report = np.empty((replicas, len(COLUMNS)), self.dtype)
        self.report.fill(1)
        self.mended: dict[int, tuple[float, float]] = {}
        self.stands = np.zeros(replicas, np.bool_)

    def _compile(self) -> None:
        assert isinstance(self.rule, Rule)
        self._clip, self._spans, self._block_of = _compiled(self.net, self.rule, isinstance(self.how.threshold, dict))

    def settle(self, stands: Any) -> None:
        """Note that a step was taken, but for replicas that stand (R,): nothing is remembered."""

    def _run(
        self, d: Floats, out: Floats, threshold: Floats, report: Floats, theta: Floats | None, rows: slice = slice(None)
    ) -> None:
        """Clip gradients of the replicas `rows`."""
        held = threshold.astype(self.dtype)
        if held.ndim == 2:
            held = np.ascontiguousarray(held[:, self._block_of])
        if self._spans is None:
            self._clip(d, out, held, report)
        else:
            self._clip(d, out, held, report, d if theta is None else theta, self._spans)

    def apply(self, rows: Floats, out: Floats, threshold: Floats, theta: Floats | None) -> None:
        """Clip every finite row into `out`; the report says which are."""
        if self.mended:
            self.mended.clear()
            self.stands[:] = False
        self._run(rows, out, threshold, self.report, theta)

    def needs_mending(self) -> bool:
        """Tell whether a row is not finite, or waits for a random step."""
        return 0.0 in self.report[:, FINITE].tolist() or (self.rule.random and bool(self.report[:, ENTRIES].any()))

    def mend(self, rows: Floats, out: Floats, threshold: Floats, theta: Any, seed: int, index: int) -> None:
        """Apply the policy to every row that is not finite, and a random step to every one that asks for it."""
        if self.rule.random:
            for r in np.flatnonzero((self.report[:, FINITE] != 0) & (self.report[:, ENTRIES] > 0)):
                self._step_at_random(rows[r], out[r], self._length(threshold, int(r)), seed, int(r), index)
        for r in np.flatnonzero(self.report[:, FINITE] == 0):
            fraction = 1.0
            if self.how.nonfinite == "zero":
                weights = None if theta is None else theta[r : r + 1]
                fraction = self._zero(rows[r], out[r], threshold, weights, seed, int(r), index)
            else:
                out[r] = self._replacement(rows[r], self._length(threshold, int(r)), theta, seed, int(r), index)
            norm = float(np.linalg.norm(out[r].astype(np.float64)))
            self.stands[r] = not out[r].any()
            self.mended[int(r)] = norm, 0.0 if self.how.nonfinite == "keep" else fraction

    def _length(self, threshold: Floats, r: int) -> Any:
        """Return how long a random step of a replica is, or how long it is in each block."""
        return threshold[r] if self.lengths is None else self.lengths[r]

    def _step_at_random(self, row: Floats, out: Floats, length: Any, seed: int, r: int, index: int) -> None:
        """Put a random step in the place of a clipped gradient, and into the report."""
        report = self.report[r]
        scaled = float(report[SCALE]) * row.astype(np.float64)
        step = self._random_step(length, seed, r, index)
        out[...] = step
        report[[CLIPPED_NORM, CLIPPED_SCALE, INNER, ENTRIES]] = length, 1.0, scaled @ step, row.size

    def _zero(self, row: Floats, out: Floats, threshold: Floats, theta: Any, seed: int, r: int, index: int) -> float:
        """Set bad entries to 0 and clip the rest; return the part of entries that changed."""
        report = np.ones((1, len(COLUMNS)), self.dtype)
        bad = ~np.isfinite(row)
        cleaned = np.where(bad, self.dtype(0), row)[None]
        self._run(cleaned, out[None], threshold[r : r + 1], report, theta, slice(r, r + 1))
        if self.rule.random and report[0, ENTRIES] > 0:
            out[...] = self._random_step(self._length(threshold, r), seed, r, index)
        if self.rule.over == "all":
            return 1.0
        return float(min(1.0, (bad.sum() + report[0, ENTRIES]) / row.size))

    def _random_step(self, length: Any, seed: int, r: int, index: int) -> Floats:
        """Return a random step of a length, or in each block of a length of its own."""
        arrays = layout.arrays(self.net) if np.ndim(length) else [(0, self.net.size, 1)]
        held = None if self.held is None else self.held[r]
        return random_step(arrays, np.atleast_1d(length), seed, self.ids[r], index, held)

    def _replacement(self, row: Floats, length: Any, theta: Any, seed: int, r: int, index: int) -> Any:
        policy = self.how.nonfinite
        if policy == "random":
            if np.isinf(length).any():
                where = where_not_finite(self.net, row, r, self.report.shape[0])
                raise FloatingPointError(f"{where} {ENDLESS} inf: give a finite one.")
            return self._random_step(length, seed, r, index)
        if policy == "shrink":
            step = np.zeros_like(row)
            for w_rec in layout.recurrent(self.net):
                step[w_rec] = SHRUNK * theta[r, w_rec]
            return step if self.held is None else np.where(self.held[r], self.dtype(0), step)
        if policy == "raise":
            raise FloatingPointError(where_not_finite(self.net, row, r, self.report.shape[0]))
        return row if policy == "keep" else 0.0


@functools.lru_cache(256)
def _compiled(net: Model, rule: Rule, by_block: bool) -> tuple[Any, Any, Any]:
    """Return the compiled loop of a rule, the spans of parameters that it is given, if any, and the block of each."""
    if by_block:
        arrays = layout.arrays(net)
        spans = arrays if rule.over == "entry" else layout.spans(net, rule.over)
        block_of = np.searchsorted(arrays[:, 0], spans[:, 0], side="right") - 1
        return build_clip_by_block(rule.clip, rule.over, rule.relative, net.scalar), spans, block_of
    if rule.over in ("all", "entry"):
        return build_clip(rule.clip, rule.over, net.scalar), None, None
    return build_span_clip(rule.clip, rule.relative, net.scalar), layout.spans(net, rule.over), None


def random_step(arrays: Any, lengths: Floats, seed: int, replica: int, index: int, held: Any = None) -> Floats:
    """Return a step in a uniformly random direction, as float64; of those that move, if `held`.

    In each of the arrays, (first, count, 1) in theta, it has a length of its own: 0 where that is NaN.
    """
    step = np.empty(sum(count for _, count, _ in arrays))
    build_normals()(step, seed, replica, index)
    if held is not None:
        step[held] = 0.0
    for (first, count, _), length in zip(arrays, lengths.astype(np.float64), strict=True):
        direction = step[first : first + count]
        norm = np.linalg.norm(direction)
        direction *= length / norm if norm > 0 and not np.isnan(length) else 0.0
    return step
