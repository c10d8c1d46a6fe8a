"""What a gradient and a clip report, on both engines: a row for each replica, and how it is read.

Norms come as (root, scale), see `nbflow.cpu.norm`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nbflow.model import _layout as layout
from nbflow.model.stack import Model
from nbflow.records import Floats, Rule

# Of a gradient, and of a shard's sums.
GRADIENT = ("loss", "omega", "count", "left out", "clipped groups", "clipped inside")
LOSS, OMEGA, COUNT, LEFT_OUT, CLIPPED_GROUPS, CLIPPED_INSIDE = range(len(GRADIENT))
# Of a clip.
COLUMNS = ("norm", "scale", "clipped norm", "clipped scale", "inner product", "clipped entries", "finite")
NORM, SCALE, CLIPPED_NORM, CLIPPED_SCALE, INNER, ENTRIES, FINITE = range(len(COLUMNS))
# What is left of w_rec as its gradient, by policy "shrink".
SHRUNK = 0.02
ENDLESS = "A random step has the threshold's length, and that is"


def read_report(report: Floats, mended: dict[int, Any], rule: Rule, size: int) -> tuple[Any, ...]:
    """Return norm, clipped_norm, fraction, cosine and finite (R,); `mended` has norm and fraction of some replicas."""
    return tuple(np.array(column) for column in zip(*read_rows(report, mended, rule, size), strict=True))


def read_rows(
    report: Floats, mended: dict[int, Any], rule: Rule, size: int
) -> Iterator[tuple[float, float, float, float, bool]]:
    """Yield norm, clipped_norm, fraction, cosine and finite of each replica; `mended` as in `read_report`."""
    for r, (norm, scale, clipped, clipped_scale, inner, entries, finite) in enumerate(report.tolist()):
        fraction = float(entries > 0) if rule.over == "all" else entries / size
        # A product of two norms that scales have made moderate; 0 where a norm is.
        product = norm * clipped
        cosine = min(max(inner / product, -1.0), 1.0) if finite and product else math.nan
        clipped = clipped / clipped_scale
        if r in mended:
            clipped, fraction = mended[r]
        yield norm / scale if finite else math.nan, clipped, fraction, cosine, finite != 0


def at_update(error: object, update: int) -> str:
    """Say of a gradient that ends a training which one it was."""
    return f"{error} It is the gradient of update {update}."


def where_groups(norms: Floats, size: int) -> str:
    """Say which groups of so many examples have a gradient that is not finite: one whose norm (R, groups) is NaN."""
    bad = np.isnan(norms)
    r, k = np.argwhere(bad)[0]
    one = f"example {k}" if size == 1 else f"examples {k * size} to {(k + 1) * size - 1}"
    of = f" of replica {r}" if len(norms) > 1 else ""
    return (
        f"the gradient of {one}{of} is not finite, one of {bad[r].sum()} of {norms.shape[1]}; lower lr or the "
        f"threshold, or give nonfinite='skip', which leaves it out."
    )


def where_not_finite(net: Model, row: Floats, r: int, replicas: int) -> str:
    """Say which parameters have a gradient that is not finite."""
    counts = {name: int((~np.isfinite(row[block])).sum()) for name, block in layout.named(net).items()}
    bad = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    of = f" of replica {r}" if replicas > 1 else ""
    return f"the gradient{of} is not finite in {bad}; lower lr or the threshold, or choose another nonfinite policy."
