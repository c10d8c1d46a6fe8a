"""Types of fields that many records have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Unit = Callable[..., Any]
# Marks fields that came later: where they are empty a record is known by what it was known by before.
UNLESS_EMPTY = "known unless empty"
