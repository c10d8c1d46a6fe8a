"""Schedules that scripts share: what a setting is at an update, known by their numbers wherever a run goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InverseTime:
    """first / t, where t counts stretches of so many updates from 1: alpha in epoch t, say."""

    first: float
    every: int

    def __call__(self, update: int) -> float:
        """Return the number of an update, counted from 0."""
        return self.first / (1 + update // self.every)


@dataclass(frozen=True)
class Descent:
    """A rate that stays as it is, and then falls to 0 in a straight line over the last part of a run."""

    first: float
    updates: int
    part: float = 0.2

    def __call__(self, update: int) -> float:
        """Return the rate of an update, counted from 0."""
        left = (self.updates - update) / (self.part * self.updates)
        return self.first * min(1.0, left)
