"""What clipping does to the direction and to the loss (claims 2 and 6), from scripts/descent.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import descent
from results_markdown import rich_to_markdown
from results_stores import Stores

import nbflow as nf
from nbflow.storage.store import Row


def direction_claim(stores: Stores) -> list[str]:
    """Return the line of claim 2: what clipping by norm does to direction and length."""
    claim = ["2", "a joint scale keeps the direction and bounds the step"]
    if "descent" not in stores:
        return [*claim, "holds", "below", "1 network, 1,200 steps"]
    rows = stores.of("descent", "network")
    every = [one for row in rows for one in descent.seen_of(row, "norm")]
    least, longest = min(one["cosine"][0] for one in every), max(one["longest"] for one in every)
    eps = 2.0**-23  # of float32, in which cosine and length are sums of thousands of numbers
    holds = 1 - least < 16 * eps and longest - 1 < 16 * eps
    effect = f"least cosine 1 - {1 - least:.0e}, greatest length (1 + {max(longest - 1, 0):.0e}) v"
    return [*claim, "holds" if holds else "doesn't hold", effect, steps_of(rows)]


def descent_claim(stores: Stores) -> list[str]:
    """Return the line of claim 6: whether clipping element by element lowers the loss."""
    claim = ["6", "clipping element by element is still descent"]
    if "descent" not in stores:
        return [*claim, "holds", "below", "1 network, 1,200 steps"]
    rows = stores.of("descent", "network")
    own = descent.part_of(rows, "value", "descends", "steps")
    true = descent.part_of(rows, "value", "true_descends", "true_steps")
    words = [f"{shown(part, least)} for {of}"
             for part, least, of in ((own, 0.99, "the minibatch's loss"), (true, 0.5, "the true loss"))]  # fmt: skip
    effect = f"lowered: that of the minibatch {descent.words(own)}, the true one {descent.words(true)}"
    return [*claim, f"as a direction holds; steps of lr 0.01: {', '.join(words)}", effect, steps_of(rows)]


def shown(part: nf.SequenceMean, least: float) -> str:
    """Return what an interval shows of a part that is claimed to be larger than `least`."""
    return "holds" if part.low > least else "doesn't hold" if part.high < least else "can't tell"


def steps_of(rows: Sequence[Row]) -> str:
    """Return of how many networks and steps a finding is."""
    steps = sum(one["steps"] for row in rows for one in descent.seen_of(row, "norm"))
    return f"{len(rows)} networks, {steps:,} steps"


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    if "descent" not in stores:
        return {}
    return {"descent": lambda: rich_to_markdown(descent.table(stores.of("descent", "network")))}
