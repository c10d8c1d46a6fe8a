"""Columns of a setting: every record has its name in a column of its own, beside those of its details.

A field that holds a record in one experiment and a name, a number or nothing in another has one column for all of
them, so that a `groupby` of it keeps apart what differs. So the name is all that the record is, not its class alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from nbflow._load import is_declared
from nbflow.records import Cell

# Longer names are cut, and end in a hash of the whole.
LONGEST = 200
# What stands for the class in a description.
TITLES = ("function", "task")
PLAIN = (str, int, float, bool, type(None))


def columns_of(thing: Any, described: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and value of every column of a record; `described` is the record as plain data."""
    for key, value in described.items():
        part, name = _part(thing, key), f"{prefix}{key}"
        if isinstance(value, dict):
            if name != "recipe":  # of which every field has its column
                yield name, _cut(_title(part, value))
            yield from columns_of(part, value, f"{name}.")
        else:
            yield name, value


def _title(thing: Any, described: dict[str, Any]) -> str:
    """Return all of a record as one text, without what is as its class has it."""
    if isinstance(thing, dict):
        return f"{{{_parts(thing, described)}}}"
    if isinstance(thing, Cell) and thing.settings and is_declared(thing):
        return thing.brief(every=True)
    kind = type(thing)
    own = kind.__name__ if kind.__module__.startswith("nbflow.") else f"{kind.__module__}.{kind.__qualname__}"
    head = next((name for name in TITLES if name in described), None)
    defaults = {f.name: f.default for f in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else {}
    told = {key: value for key, value in described.items() if key != head and not _is_default(thing, key, defaults)}
    return f"{own if head is None else described[head]}({_parts(thing, told)})"


def _is_default(thing: Any, key: str, defaults: dict[str, Any]) -> bool:
    value = _part(thing, key)
    if key not in defaults:
        return False
    return value is defaults[key] or (isinstance(value, (*PLAIN, tuple)) and value == defaults[key])


def _parts(thing: Any, described: dict[str, Any]) -> str:
    return ", ".join(f"{_word(key)}={_words(_part(thing, key), value)}" for key, value in described.items())


def _words(thing: Any, described: Any) -> str:
    if isinstance(described, dict):
        return _title(thing, described)
    if isinstance(described, list):
        return f"({', '.join(_words(_part(thing, k), value) for k, value in enumerate(described))})"
    return _word(described)


def _word(value: Any) -> str:
    """Return a name as it is; what could be taken for anything else in quotes."""
    if not isinstance(value, str):
        return repr(value)
    is_name = all(part.isidentifier() for part in value.split(".")) and value not in ("None", "True", "False")
    return value if is_name or value in ("inf", "-inf", "nan") else repr(value)


def _part(thing: Any, key: Any) -> Any:
    """Return a part of a record, a dict or a list by the name that it has in its description; None without one."""
    if isinstance(thing, dict):
        return next((value for name, value in thing.items() if str(name) == key), None)
    if isinstance(thing, list | tuple) and isinstance(key, int):
        return thing[key] if key < len(thing) else None
    return getattr(thing, str(key), None)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 16]}... {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def told_apart(experiments: list[Any]) -> None:
    """Refuse two functions of one name: their runs would be taken for the same."""
    known: dict[str, Any] = {}
    for experiment in experiments:
        for place, name, function in _functions(experiment, ""):
            if known.setdefault(name, function) != function:
                raise ValueError(
                    f"{place} has two functions called {name:.120}; expected names by which runs can be told apart. "
                    f"Give each function a name of its own."
                )


def _functions(thing: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """Yield every function of a setting: where it stands, its name, and itself without its compiler."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        if callable(thing):
            yield place, f"{type(thing).__module__}.{type(thing).__qualname__}", type(thing)
        for part in dataclasses.fields(thing):
            yield from _functions(getattr(thing, part.name), f"{place}.{part.name}" if place else part.name)
    elif isinstance(thing, dict | list | tuple):
        for key, value in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield from _functions(value, f"{place}[{key!r:.40}]")
    elif callable(thing):
        function = getattr(thing, "py_func", thing)
        name = getattr(function, "__qualname__", None)
        if name is not None:
            yield place, f"{function.__module__}.{name}", function
