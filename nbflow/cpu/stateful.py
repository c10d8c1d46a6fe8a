"""Rules of clipping that remember: what each does to the entries, and to its slots, and when that is kept.

What a rule learns of a gradient stands beside its memory until the step is taken (`StatefulClipper.settle`): an update
that is skipped or refused, and a gradient that is not finite, leave the memory as it was.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow._compile import exact_loop, exact_part, exact_unit, exactly
from nbflow.cpu.clip import build_look
from nbflow.cpu.clipping import Clipper
from nbflow.cpu.norm import build_measure
from nbflow.cpu.report import FINITE
from nbflow.cpu.rows import build_load, build_store
from nbflow.model import _layout as layout
from nbflow.model._asked import ClipMemory
from nbflow.model.stack import Model
from nbflow.records import Clip, Floats, StatefulRule


@exact_unit
def itself(g, slots):
    """Measure the gradient."""
    return g


@functools.cache
def build_stateful_clip(rule_clip, measured, over, slot_count, setting_count, dtype):
    """Build `clip(d, out, thresholds, report, spans, slots, fresh, settings, counts)`.

    d and out (R, P), thresholds (R,), report (R, columns of `nbflow.cpu.report`); spans (spans, 3) as in
    `build_span_clip`, one for a rule of all or of entries; slots and fresh (R, K, P), before and after; settings
    (1, number of settings, 1) in float64; counts (R,) int64, of what was learnt so far. A rule sees float64, which
    holds every norm of float32; one beyond it counts as the largest number, and so does what a slot cannot hold. A row
    of d that is not finite is left to the policy.
    """
    look_before, look_after = build_look(dtype)
    measure, greatest = build_measure(dtype), np.finfo(np.float64).max
    rule_clip, measured = exactly(rule_clip), exactly(measured or itself)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings, most, grouped = build_load(setting_count), dtype(np.finfo(dtype).max), over not in ("all", "entry")

    @exact_part
    def norm_of(row):
        root, scale = measure(row)
        return min(np.float64(root) / np.float64(scale), greatest)

    @exact_part
    def hold(fresh, r, p):
        """Keep the slots of an entry in the range of numbers."""
        for k in range(slot_count):
            fresh[r, k, p] = min(max(fresh[r, k, p], -most), most)

    @exact_loop(rule_clip, measured, over, slot_count, setting_count, dtype)
    def clip(d, out, thresholds, report, spans, slots, fresh, settings, counts):
        constants = load_settings(settings, 0, 0)
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            if not look_before(raw, row):
                continue
            threshold, n, entries = np.float64(thresholds[r]), np.float64(counts[r] + 1), 0
            for p in range(raw.size):
                applied[p] = dtype(measured(np.float64(raw[p]), load_slots(slots, r, p)))
            joint = norm_of(applied)
            for k in range(spans.shape[0]):
                first, count, stride = spans[k]
                stop, touched = first + (count - 1) * stride + 1, 0
                norm = norm_of(applied[first:stop:stride]) if grouped else joint
                for p in range(first, stop, stride):
                    g = np.float64(raw[p])
                    clipped, kept = rule_clip(g, norm, joint, threshold, load_slots(slots, r, p), constants, n)
                    applied[p] = dtype(clipped)
                    touched += applied[p] != raw[p]
                    store_slots(fresh, r, p, kept)
                    hold(fresh, r, p)
                entries += count if grouped and touched > 0 else touched
            look_after(raw, applied, entries, row)

    return clip


class StatefulClipper(Clipper):
    """A compiled rule with its memory, from update to update of a training."""

    rule: StatefulRule

    def __init__(self, net: Model, how: Clip, replicas: int, replica_ids: Any, held: Any, memory: ClipMemory) -> None:
        self.memory, self.fresh = memory, np.empty_like(memory.slots)
        super().__init__(net, how, replicas, replica_ids, held)

    def _compile(self) -> None:
        rule = self.rule
        self.constants = np.array(list(rule.settings.values()), np.float64).reshape(1, -1, 1)
        alone = rule.over in ("all", "entry")
        self._spans = np.array([[0, self.net.size, 1]]) if alone else layout.spans(self.net, rule.over)
        self._clip = build_stateful_clip(
            rule.clip, rule.measured, rule.over, len(rule.slots), len(rule.settings), self.dtype
        )

    def _run(
        self, d: Floats, out: Floats, threshold: Floats, report: Floats, theta: Floats | None, rows: slice = slice(None)
    ) -> None:
        slots, counts = self.memory.slots[rows], self.memory.counts[rows]
        self._clip(d, out, threshold.astype(self.dtype), report, self._spans, slots, self.fresh[rows], self.constants,
                   counts)  # fmt: skip

    def settle(self, stands: Any) -> None:
        """Keep what was learnt of finite gradients, of the replicas that do not stand (R,)."""
        learnt = (self.report[:, FINITE] != 0) & ~stands
        self.memory.slots[learnt] = self.fresh[learnt]
        self.memory.counts[learnt] += 1
