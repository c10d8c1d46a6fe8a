"""Window: sums over the updates since the last row of the history."""

from __future__ import annotations

import numpy as np

from nbflow.cpu.report import COLUMNS, ENTRIES, FINITE, NORM, SCALE
from nbflow.records import Floats

# Rows that a window keeps before it sums them.
KEPT = 256


class Window:
    """Sums since the last row of the history."""

    def __init__(self, replicas: int, size: int, flowing: bool) -> None:
        self.flowing = flowing
        # Kept as they come and summed now and then: sums at every update would be overhead of the loop.
        self.reports = np.zeros((min(size, KEPT), replicas, 3))
        self.clips = np.zeros((min(size, KEPT), replicas, len(COLUMNS)))
        self.sums = np.zeros((6, replicas))
        self.count = self.summed = 0

    def add(self, report: Floats, clip: Floats) -> None:
        """Keep the reports of an update: of its gradient (R, 3), and of its clip (R, columns of a report)."""
        place = self.count - self.summed
        self.reports[place] = report
        self.clips[place] = clip
        self.count += 1
        if place + 1 == len(self.reports):
            self._sum()

    def _sum(self) -> None:
        """Add what was kept to the sums: loss, omega, norms, how many were finite, clipped, updates."""
        kept = self.count - self.summed
        reports, clips = self.reports[:kept], self.clips[:kept]
        finite = clips[:, :, FINITE] != 0
        norms = np.divide(clips[:, :, NORM], clips[:, :, SCALE], out=np.zeros(finite.shape), where=finite)
        changed = np.where(finite, clips[:, :, ENTRIES] > 0, True)
        parts = (reports[:, :, 0], reports[:, :, 1], norms, finite, changed, np.ones(finite.shape))
        self.sums += [part.sum(axis=0) for part in parts]
        self.summed = self.count

    def means(self) -> dict[str, list[float]]:
        """Return the means, and begin anew."""
        self._sum()
        loss, omega, norm, finite, clipped, count = self.sums
        found = {"loss": loss / count}
        if self.flowing:
            found["omega"] = omega / count
        found["norm"] = norm / np.maximum(finite, 1)
        found["clipped"] = clipped / count
        found["nonfinite"] = (count - finite).astype(int)
        self.sums = np.zeros_like(self.sums)
        self.count = self.summed = 0
        return {name: values.tolist() for name, values in found.items()}
