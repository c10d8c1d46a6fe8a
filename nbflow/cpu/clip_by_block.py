"""Clipping with a threshold for each block: the rules of `nbflow.cpu.clip`, and blocks that none of them touches."""

from __future__ import annotations

import functools

from nbflow._compile import loop
from nbflow.cpu.clip import build_apply, build_clip_one, build_look


@functools.cache
def build_clip_by_block(rule_clip, over, relative, dtype):
    """Build `clip(d, out, limits, report, theta, spans)` for a rule over spans of entries, or over each alone.

    As `nbflow.cpu.clip.build_span_clip`, but for limits (R, spans): NaN for a span that is left as it is. For a rule
    over entries a span is a block, whose entries are counted one by one.
    """
    look_before, look_after = build_look(dtype)
    clip_one, apply, one = build_clip_one(rule_clip, relative, dtype), build_apply(rule_clip, dtype), dtype(1)
    measured = over != "entry"

    @loop("by block", rule_clip, measured, relative, dtype)
    def clip(d, out, limits, report, theta, spans):
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            if not look_before(raw, row):
                continue
            entries = 0
            for k in range(spans.shape[0]):
                first, count, stride = spans[k]
                limit = limits[r, k]
                if limit != limit:
                    for p in range(first, first + count * stride, stride):
                        applied[p] = raw[p]
                elif measured:
                    entries += clip_one(raw, applied, theta[r], first, count, stride, limit)
                else:
                    for p in range(first, first + count):
                        applied[p] = apply(raw[p], one, one, limit)
                        entries += applied[p] != raw[p]
            look_after(raw, applied, entries, row)

    return clip
