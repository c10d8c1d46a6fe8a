"""What a class shows of itself in the reference, beside its fields: its own methods and properties that have words."""

from __future__ import annotations

import functools
import importlib
import inspect
from types import FunctionType
from typing import Any

KINDS = (FunctionType, classmethod, staticmethod, property, functools.cached_property)


def own(name: str) -> list[str]:
    """Return the names of public methods and properties that a class, as "nbflow.Store", has written itself."""
    module, _, last = name.rpartition(".")
    found: Any = getattr(importlib.import_module(module), last)
    return sorted(
        key for key, value in vars(found).items()
        if key[0] != "_" and isinstance(value, KINDS) and inspect.getdoc(getattr(found, key))
    )  # fmt: skip
