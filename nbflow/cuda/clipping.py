"""A single clip on the card, and what is refused once its report is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow._load import load
from nbflow.cpu.report import COLUMNS, ENDLESS, ENTRIES, FINITE, where_not_finite
from nbflow.cuda import program
from nbflow.cuda.workspace import Purpose, Workspace
from nbflow.model._shape import Shape
from nbflow.model.network import Network
from nbflow.records import Clip, Floats, Rule


def clip(
    net: Network, how: Clip, rows: Floats, threshold: Floats, theta: Floats | None, draw_seed: Callable[[], int]
) -> tuple[Floats, Floats, dict[int, Any]]:
    """Return gradients (R, P) clipped, the report, and what it says of the mended ones, by replica."""
    refuse_by_block(how)
    rule: Rule = load("clips", how.rule)
    space = Workspace(
        net, Shape(rows.shape[0], 0, 0, tokens=False), Purpose(rule=rule, keeps_raw=True, sized=how.length is not None)
    )
    space.set_length(how)
    space.write("D_THETA", rows)
    space.write("THRESHOLD", threshold.astype(net.dtype))
    if theta is not None:
        space.write("THETA", theta)
    program.clip(space, how.nonfinite)
    report = space.read_clip_report()
    bad = np.flatnonzero(report[:, FINITE] == 0)
    if bad.size:
        if how.nonfinite == "raise":
            raise FloatingPointError(where_not_finite(net, rows[bad[0]], int(bad[0]), rows.shape[0]))
        if how.nonfinite == "random" and how.length is None:
            _refuse_endless_step(threshold[bad])
    if bad.size or (rule.random and report[:, ENTRIES].any()):
        program.mend(space, how.nonfinite, draw_seed(), 0)
        report = space.read_clip_report()
    mended = {int(r): tuple(report[r, len(COLUMNS) :]) for r in bad}
    return space.read("D_THETA", net.size), report[:, : len(COLUMNS)], mended


def _refuse_endless_step(threshold: Floats) -> None:
    """Refuse thresholds that are infinite, where a gradient that is not finite would become a step of that length."""
    if np.isinf(threshold).any():
        raise ValueError(
            f"threshold is {threshold.max()}; expected a finite one for policy 'random'. {ENDLESS} inf where a "
            f"gradient is not finite. Give a finite one, or nonfinite='keep'."
        )


def refuse_by_block(how: Clip) -> None:
    """Refuse thresholds by block, which the grids do not know."""
    if isinstance(how.threshold, dict):
        raise NotImplementedError(
            "threshold is by block; expected one number, as backend 'cuda' does not have it yet. Give one, or "
            "backend='cpu'."
        )
