"""Every claim of docs/results.md in a line."""

from __future__ import annotations

from collections.abc import Callable

from results_averages import average_claim
from results_descent import descent_claim, direction_claim
from results_language import language_claims
from results_length import length_claim
from results_markdown import grid
from results_overflow import overflow_claim
from results_random_steps import random_claim
from results_span import span_claims
from results_stores import Stores
from results_ways_to_clip import hidden_claim, value_claim


def claims(stores: Stores) -> str:
    """Return every claim with its verdict, the effect behind it with an interval, and how many runs that is from."""
    rows = [
        value_claim(stores),
        direction_claim(stores),
        random_claim(stores),
        overflow_claim(stores),
        average_claim(stores),
        descent_claim(stores),
        hidden_claim(stores),
        *span_claims(stores),
        length_claim(stores),
        *language_claims(stores),
    ]
    return grid(["", "claim", "verdict", "effect (95 %)", "runs"], rows)


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how the table is made, by the name of its marks."""
    return {"claims": lambda: claims(stores)} if "ways_to_clip" in stores else {}
