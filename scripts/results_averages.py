"""What clipping does to the gradient on average (claim 5), from scripts/clip_bias.py."""

from __future__ import annotations

import functools
from collections.abc import Callable

import clip_bias_report
from results_markdown import rich_to_markdown
from results_stores import Stores

from nbflow.storage.store import Row


def average_claim(stores: Stores) -> list[str]:
    """Return the line of claim 5: what clipping does to the gradient on average."""
    claim = ["5", "the average of clipped minibatch gradients is not the clipped average; large gradients and their "
                  "company lose weight"]  # fmt: skip
    if "clip_bias" not in stores:
        return [*claim, "holds", "below", "2 networks"]
    every = clip_bias_report.settings(stores.of("clip_bias", "network"))
    short = ("distance", "weight of large examples", "of those beside them")
    effects = [f"{what} {', '.join(clip_bias_report.effect(part, setting) for setting in every)}"
               for what, part in zip(short, clip_bias_report.PARTS, strict=False)]  # fmt: skip
    where = "; ".join(setting.title for setting in every)
    effect, runs = f"{'; '.join(effects)} ({where})", f"{len(every[0].seen)} networks each"
    return [*claim, clip_bias_report.verdict(every), effect, runs]


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    if "clip_bias" not in stores:
        return {}

    def networks() -> list[Row]:
        return stores.of("clip_bias", "network")

    return {
        f"clip_bias_{name}": functools.partial(lambda table: rich_to_markdown(table(networks())), table)
        for name, table in clip_bias_report.TABLES.items()
    }
