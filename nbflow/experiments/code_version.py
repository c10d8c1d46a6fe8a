"""What tells the code of a run from other code: a hash of every file of nbflow that a training can reach.

Files are found by what they import, from the one that trains groups of runs and from the packages whose files are
loaded by name. Each enters as its syntax tree, so that a comment, a docstring or a line break costs nobody their runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numba

from nbflow import __version__
from nbflow._legible import legible
from nbflow._load import DECLARED
from nbflow._sources import hash_of, read

# Where to begin: what a run does, and what is loaded by name or given by the user.
ROOTS = ("experiments._group", "data", "regularizers", *DECLARED)
# What is reached too and makes no result: a sweep trains on the CPU, a line of the store says what it is given, how a
# record shows itself is for whoever looks at it, and compiled code is the same from the disk.
OUTSIDE = ("cuda", "storage.store", "storage._files", "_legible", "_progress", "_disk_cache", "_identity", "_sources")


@functools.cache
def code_version() -> str:
    """Return the version of nbflow, and a hash of all of its code, and of numba's version, that results depend on.

    Raises
    ------
    RuntimeError
        If nbflow was installed without its sources.
    """
    texts = read()
    if texts is None:
        raise RuntimeError(
            "nbflow has no source files here; expected them, to name the code that runs belong to. Install nbflow with "
            "its sources, or name the code yourself: nf.sweep(..., code='...')."
        )
    lines = [f"{path} {file.digest}" for path, file in reached(texts).items()]
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


def reached(texts: dict[str, bytes]) -> dict[str, File]:
    """Return every file that a training can reach, by its path below `nbflow`, from the texts of all."""
    found: dict[str, File] = {}
    left = [path for name in ROOTS for path in texts if path in _files(name) or path.startswith(f"{name}/")]
    while left:
        path = left.pop()
        if path in texts and path not in found:
            found[path] = _read(texts[path])
            left += [file for name in found[path].imports for file in _files(name)]
    return found


@functools.cache
def _read(source: bytes) -> File:
    tree = ast.parse(source)
    return File(hash_of(tree), tuple(_imported(tree)))


def _files(name: str) -> tuple[str, ...]:
    """Return where a module or a package would be, if it is one; nothing of what makes no result."""
    if any(name == other or name.startswith(f"{other}.") for other in OUTSIDE):
        return ()
    place = name.replace(".", "/")
    return f"{place}.py", f"{place}/__init__.py"


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
