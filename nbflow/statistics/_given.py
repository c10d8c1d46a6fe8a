"""The numbers that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.records import Floats


def as_numbers(name: str, values: Any) -> Floats:
    """Return numbers as float64, whatever holds them."""
    try:
        return np.asarray(values, np.float64)
    except Exception:
        raise TypeError(f"{name} is {_check.said(values)}; expected numbers. Write a list of floats.") from None


def of_runs(name: str, values: Any) -> Floats:
    """Return one finite number for each of at least 2 runs."""
    found = as_numbers(name, values)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"{name} has shape {found.shape}; expected one number for each of at least 2 runs. Run more.")
    _check.finite(name, found, "A run that diverged has no loss to average: count it, or compare medians of ranks.")
    return found
