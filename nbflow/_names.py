"""Names and files: what packages that hold one thing a file have to offer, found without importing any of it."""

from __future__ import annotations

import functools
import os
import pkgutil

import nbflow
from nbflow import _check

# Packages whose names stand in two folders: a regularizer goes where a penalty goes.
FOLDERS = {"flows": ("flows", "regularizers")}


@functools.cache
def modules(package: str) -> dict[str, str]:
    """Return the module behind each name that a package offers."""
    found: dict[str, str] = {}
    for folder in FOLDERS.get(package, (package,)):
        paths = [os.path.join(path, folder) for path in nbflow.__path__]
        found |= {file.name: f"nbflow.{folder}.{file.name}" for file in pkgutil.iter_modules(paths)}
    return found


def check(package: str, name: str, argument: str) -> str:
    """Return a name that a package offers; `argument` is what a message calls it."""
    return _check.choice(argument, name, tuple(sorted(modules(package))))
