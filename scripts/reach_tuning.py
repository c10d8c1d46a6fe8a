"""The race of scripts/reach.py: which setting of an arm is best at a length, by seeds that are not reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import reach_design as designs
from reach_design import Arm, Setting
from reach_runs import Known, Place

from nbflow.storage.store import Row


class Choice(NamedTuple):
    """What tuning says of an arm at a length."""

    tried: tuple[Setting, ...]
    best: Setting | int  #: or the budget of which runs are missing
    note: str = ""  #: "guess" where nothing that was tried has learnt anything, "end" where the best is an end of it


def chosen(
    known: Known, arm: Arm, length: int, budgets: Sequence[int] = designs.TUNING, far: int = designs.FAR_TUNING
) -> Choice:
    """Return what is tried, and the one of these that is best.

    Where the best stands at an end, one more beyond it is tried, until it stands between others. Where nothing has
    learnt anything, the arms that say so go on.
    """
    settings = arm.settings
    if len(settings) == 1:
        return Choice(settings, settings[0])
    while True:
        best = _raced(known, arm, length, settings, budgets)
        if isinstance(best, int):
            return Choice(settings, best)
        learnt = _learnt(known, arm, length, settings, budgets[-1])
        if more := designs.beyond(settings, best):
            settings = more
        elif arm.far and not learnt and budgets[-1] < far:
            budgets = (*budgets, far)
        else:
            return Choice(
                settings, best, "guess" if not learnt else "end" if best in (settings[0], settings[-1]) else ""
            )


def _learnt(known: Known, arm: Arm, length: int, settings: Sequence[Setting], updates: int) -> bool:
    """Tell whether any run of tuning was better than guessing."""
    runs = (known.of(Place(arm, length, setting, seed), updates) for setting in settings
            for seed in designs.TUNING_SEEDS)  # fmt: skip
    return any(
        run is not None and run["best_score"] is not None and run["best_score"] < designs.GUESSING for run in runs
    )


def _raced(known: Known, arm: Arm, length: int, settings: Sequence[Setting], budgets: Sequence[int]) -> Setting | int:
    """Return the best of some settings, or the budget of which runs are missing.

    The first setting with a median of updates over the seeds has the least one, for all the others' are larger than the
    budget. Where none has one in the end, it is the setting that solved most, and of these the one whose best errors
    are least on average.
    """
    for updates in budgets:
        runs = {setting: [known.of(Place(arm, length, setting, seed), updates) for seed in designs.TUNING_SEEDS]
                for setting in settings}  # fmt: skip
        if any(run is None for some in runs.values() for run in some):
            return updates
        passages = {setting: sorted(np.inf if run["passage"] is None else run["passage"] for run in some if run)
                    for setting, some in runs.items()}  # fmt: skip
        known_median = {setting: some for setting, some in passages.items() if some[len(some) // 2] < np.inf}
        if known_median:
            capped = {setting: np.minimum(some, updates) for setting, some in known_median.items()}
            return min(capped, key=lambda setting: (capped[setting][len(capped[setting]) // 2],
                                                    capped[setting].mean()))  # fmt: skip
    return min(runs, key=lambda setting: (-np.isfinite(passages[setting]).sum(), _mean_error(runs[setting])))


def _mean_error(runs: Sequence[Row | None]) -> float:
    return float(np.mean([1.0 if run is None or run["best_score"] is None else run["best_score"] for run in runs]))
