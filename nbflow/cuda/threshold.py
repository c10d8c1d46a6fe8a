"""Thresholds that follow the norms, on the card: the same units as on the CPU, a thread for each replica.

Settings and memory of a replica lie side by side in float64, and stay there whatever becomes of the workspace.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._compile import JIT, exactly
from nbflow._load import is_declared
from nbflow.cpu.report import FINITE, NORM, SCALE
from nbflow.cpu.threshold import forget
from nbflow.cuda.device import allocate, cuda, grid, launch_over
from nbflow.cuda.job import CLIP_REPORT, REPLICAS, THRESHOLD, at
from nbflow.cuda.memory import build_load
from nbflow.cuda.replica import none_left
from nbflow.records import Threshold


@functools.cache
def build_follow(value, learn, learns_first, setting_count, dtype):
    """Build the grid `follow(job, numbers, memory, width, update)`: THRESHOLD from the norms of CLIP_REPORT.

    As `nbflow.cpu.threshold`; `memory` has `width` numbers for each replica, its settings first. What is no threshold
    (negative, or NaN) is left as it is, for the host to find.
    """
    load_settings, value = build_load(setting_count), exactly(value)
    enter = forget if learn is None else exactly(learn)
    greatest, dust = np.finfo(np.float64).max, -_check.DUST
    least, most = np.float64(np.finfo(dtype).tiny), np.float64(np.finfo(dtype).max)

    @grid
    def follow(job, numbers, memory, width, update):
        r = cuda.grid(1)
        if r < job[REPLICAS]:
            report, first = at(job, CLIP_REPORT, r), r * width
            norm = np.float64(np.inf)
            if numbers[report + FINITE] != 0 and not none_left(job, numbers, r):
                norm = np.float64(numbers[report + NORM]) / np.float64(numbers[report + SCALE])
            known, constants = norm <= greatest, load_settings(memory, first, 1)
            own = memory[first + setting_count : first + width]
            if learns_first and known:
                enter(norm, own, constants)
            threshold = value(norm, own, constants, update)
            if not learns_first and known:
                enter(norm, own, constants)
            # Comparisons, since the card's min and max drop a NaN.
            if dust <= threshold <= 0.0:
                threshold = 0.0
            elif 0.0 < threshold < least:
                threshold = least
            elif most < threshold <= greatest:
                threshold = most
            numbers[at(job, THRESHOLD, r)] = dtype(threshold)

    return follow


def _refuse_unknown_places(how: Threshold, room: int) -> None:
    """Refuse a threshold of one's own that may look beyond its memory: on the card nobody would see it."""
    if is_declared(how) or not JIT:
        return
    from nbflow._probe import stays_inside

    if not stays_inside(how, room):
        raise NotImplementedError(
            f"threshold remembers {room} numbers and looks for them at places that only a run knows, or may raise; "
            f"backend 'cuda' cannot check that. Use constant places, or backend='cpu'."
        )


class Memory:
    """What a threshold remembers, on the card, and how it gets there and back."""

    def __init__(self, follower: Any) -> None:
        self.follower, how, (replicas, self.count, _) = follower, follower.how, follower.settings.shape
        _refuse_unknown_places(how, follower.memory.shape[1])
        # One number at least: the card has no empty arrays.
        self.width = max(1, self.count + follower.memory.shape[1])
        self.held = allocate(replicas * self.width, np.float64, "for the memory of a threshold")
        self.kept: Any = None
        self.kernel = build_follow(how.value, how.learn, how.learns_first, self.count, follower.last.dtype.type)
        self.take()

    def take(self) -> None:
        """Copy settings and memory to the card."""
        memory = self.follower.memory
        whole = np.zeros((memory.shape[0], self.width))
        whole[:, : self.count] = self.follower.settings[..., 0]
        whole[:, self.count : self.count + memory.shape[1]] = memory
        self.held.copy_to_device(whole.reshape(-1))

    def bring(self) -> None:
        """Copy the memory back."""
        memory = self.follower.memory
        whole = self.held.copy_to_host().reshape(-1, self.width)
        memory[...] = whole[:, self.count : self.count + memory.shape[1]]

    def keep(self) -> None:
        """Remember what the memory is now, on the card."""
        if self.kept is None:
            self.kept = allocate(self.held.size, np.float64, "for the memory of a threshold")
        self.kept.copy_to_device(self.held)

    def take_back(self) -> None:
        """Forget what was learnt since `keep`."""
        self.held.copy_to_device(self.kept)

    def follow(self, space: Any, update: int) -> None:
        """Queue the thresholds of the gradients that CLIP_REPORT tells of."""
        launch_over(self.kernel, space.shape.replicas, space.job, space.numbers, self.held, self.width, update)
