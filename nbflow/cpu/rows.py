"""Adapters between rows of memory and tuples of numbers, for any number of gates, states or saved numbers."""

from __future__ import annotations

import functools

from nbflow._compile import unit


@unit
def _load_none(rows, b, j):
    return ()


@unit
def _store_none(rows, b, j, numbers):
    return


@functools.cache
def build_constants(count):
    """Build `constants(rows, j)`: what a call is given more by a cell with `count` settings, rows (count, H).

    `*constants(rows, j)` is one argument, the tuple of the settings of unit j, or none for a cell without settings.
    """
    if count == 0:
        return _no_constants
    load = _build_column(count)

    @unit
    def constants(rows, j):
        return (load(rows, j),)

    return constants


@unit
def _no_constants(rows, j):
    return ()


@functools.cache
def _build_column(count):
    if count == 0:
        return _no_constants
    last, before = count - 1, _build_column(count - 1)

    @unit
    def load(rows, j):
        return (*before(rows, j), rows[last, j])

    return load


@functools.cache
def build_load(count):
    """Build `load(rows, b, j)`: the tuple `rows[b, 0, j], ..., rows[b, count-1, j]`."""
    if count == 0:
        return _load_none
    last = count - 1
    before = build_load(last)

    @unit
    def load(rows, b, j):
        return (*before(rows, b, j), rows[b, last, j])

    return load


@functools.cache
def build_store(count):
    """Build `store(rows, b, j, numbers)`, the inverse of `load`."""
    if count == 0:
        return _store_none
    last = count - 1
    before = build_store(last)

    @unit
    def store(rows, b, j, numbers):
        before(rows, b, j, numbers)
        rows[b, last, j] = numbers[last]

    return store
