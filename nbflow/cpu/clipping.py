"""Clips of whole gradients: the rule, then what takes the place of a gradient that is not finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow._load import load
from nbflow.cpu.clip import build_clip, build_group_clip
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
    """

    def __init__(self, net: Model, how: Clip, replicas: int, replica_ids: Any = None, held: Any = None) -> None:
        self.net, self.how, self.held = net, how, held
        self.ids = range(replicas) if replica_ids is None else replica_ids  # under which random steps are drawn
        self.rule: AnyRule = load("clips", how.rule)
        self.dtype = net.scalar
        self._compile()
        self.report = np.empty((replicas, len(COLUMNS)), self.dtype)
        self.report.fill(1)
        self.mended: dict[int, tuple[float, float]] = {}
        self.stands = np.zeros(replicas, np.bool_)

    def _compile(self) -> None:
        assert isinstance(self.rule, Rule)
        self._clip, self._groups = _compiled(self.net, self.rule)

    def settle(self, stands: Any) -> None:
        """Note that a step was taken, but for replicas that stand (R,): nothing is remembered."""

    def _run(
        self, d: Floats, out: Floats, threshold: Floats, report: Floats, theta: Floats | None, rows: slice = slice(None)
    ) -> None:
        """Clip gradients of the replicas `rows`."""
        held = threshold.astype(self.dtype)
        if self._groups is None:
            self._clip(d, out, held, report)
        else:
            self._clip(d, out, held, report, d if theta is None else theta, self._groups)

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
                self._step_at_random(rows[r], out[r], float(threshold[r]), seed, int(r), index)
        for r in np.flatnonzero(self.report[:, FINITE] == 0):
            fraction = 1.0
            if self.how.nonfinite == "zero":
                weights = None if theta is None else theta[r : r + 1]
                fraction = self._zero(rows[r], out[r], float(threshold[r]), weights, seed, int(r), index)
            else:
                out[r] = self._replacement(rows[r], threshold[r], theta, seed, int(r), index)
            norm = float(np.linalg.norm(out[r].astype(np.float64)))
            self.stands[r] = not out[r].any()
            self.mended[int(r)] = norm, 0.0 if self.how.nonfinite == "keep" else fraction

    def _step_at_random(self, row: Floats, out: Floats, threshold: float, seed: int, r: int, index: int) -> None:
        """Put a random step in the place of a clipped gradient, and into the report."""
        report = self.report[r]
        scaled = float(report[SCALE]) * row.astype(np.float64)
        step = self._random_step(threshold, seed, r, index)
        out[...] = step
        report[[CLIPPED_NORM, CLIPPED_SCALE, INNER, ENTRIES]] = threshold, 1.0, scaled @ step, row.size

    def _zero(self, row: Floats, out: Floats, threshold: float, theta: Any, seed: int, r: int, index: int) -> float:
        """Set bad entries to 0 and clip the rest; return the part of entries that changed."""
        report = np.ones((1, len(COLUMNS)), self.dtype)
        bad = ~np.isfinite(row)
        cleaned = np.where(bad, self.dtype(0), row)[None]
        self._run(cleaned, out[None], np.full(1, threshold), report, theta, slice(r, r + 1))
        if self.rule.random and report[0, ENTRIES] > 0:
            out[...] = self._random_step(threshold, seed, r, index)
        if self.rule.over == "all":
            return 1.0
        return float(min(1.0, (bad.sum() + report[0, ENTRIES]) / row.size))

    def _random_step(self, length: float, seed: int, r: int, index: int) -> Floats:
        return random_step(self.net.size, length, seed, self.ids[r], index, None if self.held is None else self.held[r])

    def _replacement(self, row: Floats, threshold: float, theta: Any, seed: int, r: int, index: int) -> Any:
        policy = self.how.nonfinite
        if policy == "random":
            if math.isinf(threshold):
                where = where_not_finite(self.net, row, r, self.report.shape[0])
                raise FloatingPointError(f"{where} {ENDLESS} {threshold}: give a finite one.")
            return self._random_step(threshold, seed, r, index)
        if policy == "shrink":
            step = np.zeros_like(row)
            for w_rec in layout.recurrent(self.net):
                step[w_rec] = SHRUNK * theta[r, w_rec]
            return step if self.held is None else np.where(self.held[r], self.dtype(0), step)
        if policy == "raise":
            raise FloatingPointError(where_not_finite(self.net, row, r, self.report.shape[0]))
        return row if policy == "keep" else 0.0


@functools.lru_cache(256)
def _compiled(net: Model, rule: Rule) -> tuple[Any, Any]:
    """Return the compiled loop of a rule, and the groups of parameters that it is given, if any."""
    if rule.over in ("all", "entry"):
        return build_clip(rule.clip, rule.over, net.scalar), None
    return build_group_clip(rule.clip, rule.relative, net.scalar), layout.groups(net, rule.over)


def random_step(size: int, length: float, seed: int, replica: int, index: int, held: Any = None) -> Floats:
    """Return a step of the given length in a uniformly random direction, as float64; of those that move, if `held`."""
    direction = np.empty(size)
    build_normals()(direction, seed, replica, index)
    if held is not None:
        direction[held] = 0.0
    step: Floats = direction * (length / np.linalg.norm(direction))
    return step
