"""Window: sums over the updates since the last row of the history."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.cpu.report import (
    CLIPPED_GROUPS,
    CLIPPED_INSIDE,
    CLIPPED_NORM,
    CLIPPED_SCALE,
    COLUMNS,
    ENTRIES,
    FINITE,
    GRADIENT,
    INNER,
    LEFT_OUT,
    LOSS,
    NORM,
    OMEGA,
    SCALE,
)
from nbflow.records import Floats
from nbflow.training.recipe import Recipe

# Rows that a window keeps before it sums them.
KEPT = 256
# What is summed; a clip is `compared` where the gradient before and after it has a direction.
SUMS = ("loss", "omega", "norm", "clipped norm", "finite", "changed", "cosine", "compared", "left out",
        "clipped groups", "clipped inside")  # fmt: skip


def grouped_by(recipe: Recipe) -> str:
    """Return what a recipe clips before a mean is taken: an "example", a "group" of them, or ""."""
    if recipe.clip_example is not None:
        return "example"
    return "" if recipe.clip_microbatch is None else "group"


class Window:
    """Sums since the last row of the history."""

    def __init__(self, replicas: int, recipe: Recipe) -> None:
        self.flowing, self.clipping = recipe.flow is not None, recipe.clip is not None
        groups = (getattr(how, "nonfinite", "keep") for how in (recipe.clip_example, recipe.clip_microbatch))
        self.skipping, self.clipping_inside = "skip" in groups, recipe.clip_hidden is not None
        self.grouped = grouped_by(recipe)
        # Kept as they come and summed now and then: sums at every update would be overhead of the loop.
        self.room = min(recipe.record_every, KEPT)
        self.reports = np.zeros((self.room, replicas, len(GRADIENT)))
        self.clips = np.zeros((self.room, replicas, len(COLUMNS)))
        self.sums = np.zeros((len(SUMS), replicas))
        self.count = self.summed = 0
        self.latest = -1  # the row of the last update

    def add(self, report: Floats, clip: Floats, groups: int = 1) -> None:
        """Keep the reports of an update: of its gradient (R, columns), and of its clip (R, columns of a report).

        Of the `groups` that are clipped before a mean is taken, the part is kept.
        """
        place = self.count - self.summed
        self.reports[place] = report
        if groups > 1:
            self.reports[place, :, CLIPPED_GROUPS] /= groups
        self.clips[place] = clip
        self.latest = place
        self.count += 1
        if place + 1 == len(self.reports):
            self._sum()

    def last(self, name: str) -> Floats:
        """Return loss, omega, norm or clipped_norm (R,) of the last update; NaN where there was none."""
        if self.latest < 0:
            return np.full(self.reports.shape[1], np.nan)
        report, clip = self.reports[self.latest], self.clips[self.latest]
        if name in ("loss", "omega"):
            found: Floats = report[:, LOSS if name == "loss" else OMEGA].copy()
            return found
        root, scale = (NORM, SCALE) if name == "norm" else (CLIPPED_NORM, CLIPPED_SCALE)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(clip[:, root] / clip[:, scale])

    def state(self) -> dict[str, Floats]:
        """Return what it holds, by name: views, into which a saved state may be copied."""
        kept = self.count - self.summed
        return {"window/sums": self.sums, "window/reports": self.reports[:kept], "window/clips": self.clips[:kept]}

    def resize(self, count: int, kept: int) -> None:
        """Make room for a saved state: so many updates, of which so many are not yet summed."""
        if not 0 <= kept <= min(count, KEPT):
            raise ValueError(f"checkpoint: {kept} of {count} updates of a window; expected fewer. Delete it.")
        if kept >= len(self.reports):  # of a run that made rows less often
            self.reports, self.clips = (np.zeros((kept + 1, *rows.shape[1:])) for rows in (self.reports, self.clips))
        self.count, self.summed = count, count - kept

    def _sum(self) -> None:
        """Add what was kept to the sums."""
        kept = self.count - self.summed
        if not kept:
            return
        reports, clips = self.reports[:kept], self.clips[:kept]
        finite = clips[:, :, FINITE] != 0
        changed = np.where(finite, clips[:, :, ENTRIES] > 0, True)
        norms, clipped = clips[:, :, NORM], clips[:, :, CLIPPED_NORM]
        product = norms * clipped
        compared = finite & (product > 0)
        parts = (reports[:, :, LOSS], reports[:, :, OMEGA], _quotient(norms, clips[:, :, SCALE], finite),
                 _quotient(clipped, clips[:, :, CLIPPED_SCALE], finite), finite, changed,
                 _quotient(clips[:, :, INNER], product, compared), compared, reports[:, :, LEFT_OUT],
                 reports[:, :, CLIPPED_GROUPS], reports[:, :, CLIPPED_INSIDE])  # fmt: skip
        # Added in their order: `sum` would add one replica's in another order than several replicas'.
        self.sums += [np.cumsum(part, axis=0)[-1] for part in parts]
        self.summed = self.count

    def means(self) -> dict[str, list[float]]:
        """Return the means, and begin anew."""
        self._sum()
        loss, omega, norm, clipped_norm, finite, clipped, cosine, compared, left_out, groups, inside = self.sums
        found: dict[str, Floats] = {"loss": loss / self.count}
        if self.flowing:
            found["omega"] = omega / self.count
        found["norm"] = _mean(norm, finite)
        if self.clipping:
            found["clipped_norm"] = _mean(clipped_norm, finite)
            # Rounding may leave a sum of cosines a little beyond their number.
            found["cosine"] = np.clip(_mean(cosine, compared), -1, 1)
        found["clipped"] = clipped / self.count
        found["nonfinite"] = (self.count - finite).astype(int)
        if self.skipping:
            found["left_out"] = left_out.astype(int)
        if self.grouped:
            found[f"clipped_{self.grouped}s"] = groups / self.count
        if self.clipping_inside:
            found["clipped_hidden"] = inside / self.count
        self.sums = np.zeros_like(self.sums)
        self.count = self.summed = 0
        return {name: values.tolist() for name, values in found.items()}


def _mean(total: Floats, count: Floats) -> Floats:
    """Return total / count, NaN where there is nothing to take a mean of."""
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _quotient(a: Any, b: Any, where: Any) -> Any:
    return np.divide(a, b, out=np.zeros(a.shape), where=where)
