"""Synthetic tasks, one a file; the file's name is the public name."""

from types import ModuleType

from nbflow import _load


def __getattr__(name: str) -> ModuleType:
    return _load.module(__name__, name)
