"""Thresholds by block: which number belongs to which part of theta, for a clip that has a mapping."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model import _layout as layout
from nbflow.model.stack import Model
from nbflow.records import OTHERS, Clip, Floats, Rule

# Rules of these look at one block or less at a time; the others have one norm over several.
PARTS = ("block", "unit", "entry")


def check_rule_by_block(how: Clip, rule: Any) -> None:
    """Refuse thresholds by block for a rule whose norm is of more than a block, and for one that remembers."""
    if not isinstance(rule, Rule):
        raise ValueError(
            f"threshold is by block and the rule {_check.said(how.rule)} remembers gradients; expected one number for "
            f"such a rule. Give one, or a rule without a memory."
        )
    if rule.over not in PARTS:
        raise ValueError(
            f"threshold is by block and the rule {_check.said(how.rule)} has one norm over all of them; expected one "
            f"number, or a rule of each block, unit or entry. Write nbflow.Clip('block', ...)."
        )


def block_names(net: Model) -> list[str]:
    """Return the name of every array that has entries, in the order of theta: of a stack with its layer."""
    return [name for name, block in layout.named(net).items() if block.stop > block.start]


def spread(values: dict[str, Any], net: Model, replicas: int) -> Floats:
    """Return limits (R, blocks): NaN for a block that is exempt; the values are numbers, one per replica, or None."""
    names = block_names(net)
    limits = np.full((replicas, len(names)), np.nan)
    for k, name in enumerate(names):
        value = values.get(name.split(" of ")[0], values.get(OTHERS))
        if value is not None:
            limits[:, k] = value
    return limits
