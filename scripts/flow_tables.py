"""The tables of scripts/flow.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flow_measures import PAIRS, over_seeds, said
from rich.table import Table

from nbflow.experiments.console import headed


def span(values: Any, digits: str, logarithmic: bool = False) -> str:
    """Say a mean over seeds and its interval: how far it reaches or, of a geometric mean, the factor."""
    mean, _, high = over_seeds(values, logarithmic)
    if not np.isfinite(high):
        return f"{mean:{digits}}"
    return f"{mean:{digits}} ×÷{high / mean:.2g}" if logarithmic else f"{mean:{digits}} ±{high - mean:{digits}}"


def table(options: Any, found: Sequence[Any]) -> Table:
    """Return what became of every method at the last moment."""
    last = max(options.moments)
    title = f"After {last} % of {options.updates:,} updates; means over {options.replicas} seeds (95 % interval)"
    rows = headed(title, "method", "under 1 %", "first at update (thousands)", "wrong at the end (%)", "gradient left",
                  "median gain", "largest exponent (nats/step)", "largest singular value")  # fmt: skip
    for seen in found:
        at = seen.looks[last]
        passed = sum(passage is not None for passage in seen.passages)
        rows.add_row(
            seen.title, f"{passed} of {options.replicas}",
            " ".join("-" if passage is None else f"{passage / 1000:g}" for passage in seen.passages),
            " ".join(f"{100 * error:.1f}" for error in seen.errors[-1]), span(at.by_lag[:, -1], ".2g", True),
            span(at.median_gain, ".2f", True), span(at.exponents[:, 0], ".3f"), span(at.singular[:, 0], ".2g", True),
        )  # fmt: skip
    return rows


def moments_table(options: Any, found: Sequence[Any]) -> Table:
    """Return how much of the gradient is left at the first step, along training."""
    heads = (f"update {moment * options.updates // 100:,}" for moment in options.moments)
    rows = headed(f"The gradient that is left: at the first state over at the last, {options.length} steps later",
                  "method", *heads)  # fmt: skip
    for seen in found:
        rows.add_row(seen.title, *(span(seen.looks[m].by_lag[:, -1], ".2g", True) for m in options.moments))
    return rows


def derivatives_table(options: Any, seen: Any) -> Table:
    """Return cosine and norm ratio between the derivatives of Omega, along training."""
    title = f"The derivatives of Omega, while training by {seen.title}; means over seeds (95 % interval)"
    rows = headed(title, "update", *(words for _, _, _, words in SAID), "Omega")
    for moment, at in seen.comparisons.items():
        cells = [span(getattr(at, what)[part][said(PAIRS[pair])], ".2f") for what, part, pair, _ in SAID]
        rows.add_row(f"{moment * options.updates // 100:,}", *cells, f"{over_seeds(at.omega, True).mean:.1e}")
    return rows


# What the table says of a comparison: cosine or ratio, of which part, of which pair, and how it is called.
SAID = (
    ("cosine", "all", 0, "cosine, immediate and exact"), ("cosine", "w_rec", 0, "the same, w_rec alone"),
    ("cosine", "step", 0, "the same, with the loss"), ("cosine", "all", 1, "cosine, detached and exact"),
    ("cosine", "step", 1, "the same, with the loss"),
    ("cosine", "w_rec", 2, "cosine, immediate and detached, w_rec"),
    ("ratio", "all", 0, "norm, immediate / exact"), ("ratio", "all", 1, "norm, detached / exact"),
)  # fmt: skip
