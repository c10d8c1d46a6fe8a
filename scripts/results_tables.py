"""The tables of docs/results.md, each from its store; scripts/results.py puts them where they belong."""

from __future__ import annotations

from collections.abc import Callable

import results_averages
import results_claims
import results_descent
import results_language
import results_length
import results_overflow
import results_random_steps
import results_span
import results_table_1
import results_ways_to_clip
from results_stores import Stores

SECTIONS = (
    results_claims,
    results_ways_to_clip,
    results_random_steps,
    results_span,
    results_length,
    results_language,
    results_table_1,
    results_averages,
    results_descent,
    results_overflow,
)


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; of a store that is there."""
    return {name: make for section in SECTIONS for name, make in section.made_of(stores).items()}
