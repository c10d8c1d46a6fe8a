"""What tells the code of a run from other code: a hash of every file of nbflow that a training can reach.

Files are found by what they import, from the one that trains groups of runs and from the packages whose files are
loaded by name. Each enters as its syntax tree, so that a comment, a docstring or a line break costs nobody their runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numba

from nbflow import __version__
from nbflow._legible import legible
from nbflow._load import DECLARED

# Where to begin: what a run does, and what is loaded by name or given by the user.
ROOTS = ("experiments._group", "data", "regularizers", *DECLARED)
# What is reached too and makes no result: a sweep trains on the CPU, a line of the store says what it is given, and
# how a record shows itself is for whoever looks at it.
OUTSIDE = ("cuda", "storage.store", "storage._files", "_legible")


@functools.cache
def code_version() -> str:
    """Return the version of nbflow, and a hash of all of its code, and of numba's version, that results depend on."""
    root = pathlib.Path(__file__).parents[1]
    lines = [f"{path.relative_to(root).as_posix()} {file.digest}" for path, file in reached(root).items()]
    text = "\n".join([numba.__version__, *sorted(lines)])
    return f"{__version__}+{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@legible
class File(NamedTuple):
    """A file of nbflow.

    Attributes
    ----------
    digest : str
        A hash of what it does.
    imports : tuple of str
        Modules of nbflow, without "nbflow.", and names that are none.
    """

    digest: str
    imports: tuple[str, ...]


def reached(root: pathlib.Path) -> dict[pathlib.Path, File]:
    """Return every file that a training can reach."""
    found: dict[pathlib.Path, File] = {}
    left = list(_roots(root))
    while left:
        path = left.pop()
        if path not in found:
            found[path] = _read(path.read_bytes())
            left += [file for name in found[path].imports for file in _file(root, name)]
    return found


@functools.cache
def _read(source: bytes) -> File:
    tree = ast.parse(source)
    return File(hashlib.sha256("".join(_words(tree)).encode()).hexdigest(), tuple(_imported(tree)))


def _roots(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for name in ROOTS:
        yield from _file(root, name)
        yield from root.joinpath(name).rglob("*.py")


def _file(root: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Return the file of a module or of a package; none of a name in a module, or of what makes no result."""
    if any(name == other or name.startswith(f"{other}.") for other in OUTSIDE):
        return []
    place = root.joinpath(*name.split("."))
    return [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield all that a file may import from nbflow, without "nbflow."; some of it may be no module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "nbflow":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nbflow."):
            module = node.module.removeprefix("nbflow.")
            # Of a module, what is imported is no file; of a package, it may be one.
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("nbflow.") for alias in node.names if alias.name.startswith("nbflow."))


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
