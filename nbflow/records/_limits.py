"""Which numbers make sense for a field, as `_check.per_replica` takes it.

They are looked at as a record is made, and as it is used, where the dtype and R are known and schedules are asked.
"""

from __future__ import annotations

from typing import Any

RATES: dict[str, Any] = {"least": 0.0, "finite": True}
THRESHOLDS: dict[str, Any] = {"least": 0.0}
BOUNDS: dict[str, Any] = {"least": 0.0, "above": True}
LENGTHS: dict[str, Any] = {"least": 0.0, "above": True, "finite": True}
PARTS: dict[str, Any] = {"least": 0.0, "most": 1.0}
