"""A single clip on the card."""

from __future__ import annotations

from typing import Any

from nbflow.cpu.workspace import Shape
from nbflow.cuda import program
from nbflow.cuda.workspace import Purpose, Workspace
from nbflow.model.network import Network
from nbflow.records import Floats, Rule


def run_clip(net: Network, rule: Rule, rows: Floats, threshold: Floats, theta: Any, policy: str) -> Workspace:
    """Clip rows (R, P); return the workspace in which D_THETA and CLIP_REPORT hold what came out."""
    space = Workspace(net, Shape(rows.shape[0], 0, 0, tokens=False), Purpose(rule=rule, keeps_raw=True))
    space.write("D_THETA", rows)
    space.write("THRESHOLD", threshold.astype(net.dtype))
    if theta is not None:
        space.write("THETA", theta)
    program.clip(space, policy)
    return space


def run_mend(space: Workspace, policy: str, seed: int) -> Any:
    """Do what the rule leaves to the policy; return the report."""
    program.mend(space, policy, seed, 0)
    return space.read_clip_report()
