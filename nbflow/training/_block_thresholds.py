"""Thresholds by block in a training run: a number, one per replica or a schedule for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.gradients._by_block import block_names, spread
from nbflow.model.stack import Model
from nbflow.records import THRESHOLDS, Floats
from nbflow.training._setting import Setting


class BlockThresholds:
    """What a `nbflow.training._setting.Setting` is for one threshold: `at` an update limits (R, blocks), NaN if exempt.

    `last` are those of the last update.
    """

    def __init__(self, thresholds: dict[str, Any], net: Model, replicas: int) -> None:
        self.net, self.replicas = net, replicas
        self.settings = {
            name: None
            if value is None
            else Setting(f"threshold[{name!r:.40}]", value, replicas, net.scalar, **THRESHOLDS)
            for name, value in thresholds.items()
        }
        self.names = block_names(net)
        self.fixed = None if any(map(callable, thresholds.values())) else self._at(0)
        self.last: Floats = np.full((replicas, len(self.names)), np.nan)

    def at(self, update: int) -> Floats:
        """Return the limits of an update."""
        return self._at(update) if self.fixed is None else self.fixed

    def _at(self, update: int) -> Floats:
        values = {name: None if one is None else one.at(update) for name, one in self.settings.items()}
        return spread(values, self.net, self.replicas).astype(self.net.dtype)

    def columns(self, last: Any) -> dict[str, list[float]]:
        """Return what the history says of them: a column (R,) for each block that is not exempt."""
        found = np.array(last)
        kept = {name: found[:, k].tolist() for k, name in enumerate(self.names)}
        exempt = np.isnan(spread({name: one and 0.0 for name, one in self.settings.items()}, self.net, 1)[0])
        return {f"threshold.{name}": kept[name] for name, left in zip(self.names, exempt, strict=True) if not left}
