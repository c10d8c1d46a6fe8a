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
