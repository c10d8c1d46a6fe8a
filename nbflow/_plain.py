"""Numbers as Python has them: what NumPy's scalars become where a record is made.

A scalar of a small dtype goes on computing in that dtype: `np.uint8(200) + 100` is 44. So no field of a record keeps
one, whoever reads it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return the Python number (or str) that a NumPy scalar or an array without axes is; anything else as it is.

    Those in a tuple, a list or a dict too.
    """
    if isinstance(value, np.longdouble):
        return float(value)  # whose `item` is a long double again
    if isinstance(value, np.generic) or (type(value) is np.ndarray and value.ndim == 0):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {name: plain(one) for name, one in value.items()}
    return value


def plain_fields(record: Any) -> None:
    """Let every field of a frozen dataclass be plain; for its `__post_init__`."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if (found := plain(value)) is not value:
            object.__setattr__(record, field.name, found)
