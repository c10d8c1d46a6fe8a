"""Regularizers in NumPy, added to a gradient once an update, one a file; names of `nbflow.names("flows")`."""

from types import ModuleType

from nbflow import _load


def __getattr__(name: str) -> ModuleType:
    return _load.module(__name__, name)
