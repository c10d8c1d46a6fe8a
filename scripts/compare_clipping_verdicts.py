"""What scripts/compare_clipping.py says of its runs: as scripts/ways_to_clip.py, by the margin that its design has."""

from __future__ import annotations

from ways_to_clip_design import Plan
from ways_to_clip_verdicts import (
    ALPHA,
    DIFFERENT,
    EQUIVALENT,
    LOSS_MARGIN,
    TIME_MARGIN,
    UNCLEAR,
    Comparison,
    Outcome,
    compare as compare_by,
    outcome,
    verdict,
)

__all__ = ["ALPHA", "DIFFERENT", "EQUIVALENT", "LOSS_MARGIN", "RATE_MARGIN", "TIME_MARGIN", "UNCLEAR", "Comparison",
           "Outcome", "compare", "outcome", "verdict"]  # fmt: skip

# Two methods that differ by less in their success are alike to who can afford a second run where the first one fails.
RATE_MARGIN = 0.2


def compare(plan: Plan, outcomes: dict[str, Outcome]) -> dict[str, Comparison]:
    """Hold every variant against clipping by norm."""
    return compare_by(plan, outcomes, RATE_MARGIN)
