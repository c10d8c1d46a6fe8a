"""The source files of nbflow, in a folder or in a zip, and what a text means: its syntax tree without docstrings."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.resources
from collections.abc import Iterator
from typing import Any

# What Python imports without a source: extension modules and bytecode alone.
SOURCELESS = tuple(suffix for suffix in importlib.machinery.all_suffixes() if suffix != ".py")


def read(names: tuple[str, ...] = ("",), root: Any = None) -> dict[str, bytes] | None:
    """Return the text of all files of these modules and packages, by their paths below `nbflow`.

    None where one of them has no source: nobody can say then what code it is.
    """
    root = importlib.resources.files("nbflow") if root is None else root
    found: dict[str, bytes] = {}
    for name in names:
        place = root.joinpath(name) if name else root
        here = dict(_files(place, name)) if place.is_dir() or place.is_file() else {}
        if not any(here.values()) or None in here.values():
            return None
        found |= {path: text for path, text in here.items() if text is not None}
    return found


def _files(place: Any, path: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield every file that can be imported, with its text if it has one."""
    if place.is_file():
        yield path, place.read_bytes()
        return
    for child in sorted(place.iterdir(), key=lambda child: child.name):
        below = f"{path}/{child.name}".lstrip("/")
        if child.name.endswith(".py") or (child.is_dir() and child.name != "__pycache__"):
            yield from _files(child, below)
        elif child.name.endswith(SOURCELESS):
            yield below, None


def meaning(text: bytes) -> str:
    """Return a hash of what a text does: a comment, a docstring or a line break does nothing."""
    return hash_of(ast.parse(text))


def hash_of(tree: ast.AST) -> str:
    """Return a hash of a syntax tree without docstrings."""
    return hashlib.sha256("".join(_words(tree)).encode()).hexdigest()


def _words(node: object) -> Iterator[str]:
    """Yield a syntax tree in words, without docstrings; not `ast.dump`, whose words change with Python."""
    if isinstance(node, list):
        yield "["
        for one in node:
            yield from _words(one)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = value[1:]
            if value is not None and value != []:
                yield name
                yield from _words(value)
        yield ")"
    else:
        yield f"{node!a},"


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
