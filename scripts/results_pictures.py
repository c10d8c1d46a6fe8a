"""The pictures of docs/results.md, each from its store."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brink
import clip_bias_pictures
import descent
import generalization
import language
import language_sizes
import language_sizes_report
import lengths_report
import overflow_report
import random_steps_report
import reach_report
import table_1
import table_1_report
import ways_to_clip_pictures
from reach_design import DESIGNS
from results_language import language_found
from results_stores import LanguageParts, Stores


def drawn_of(stores: Stores) -> dict[str, Callable[[], Any]]:
    """Return how each picture is made, by its name in docs/images; of a store that is there."""
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "generalization": {"generalization": lambda: _generalization(stores)},
        "language": {"language": lambda: _language(stores)},
        "clip_bias": {
            "clip_bias": lambda: clip_bias_pictures.bias(stores.of("clip_bias", "network")),
            "clip_bias_who": lambda: clip_bias_pictures.who_loses(stores.of("clip_bias", "network")),
        },
        "descent": {"descent": lambda: descent.picture(stores.of("descent", "network"))},
        "brink": {"brink": lambda: brink.picture(stores.of("brink", "escape"))},
        "overflow": {"overflow": lambda: overflow_report.picture(stores.of("overflow", "training"),
                                                                 stores.of("overflow", "outcome"))},
        "lengths": {"lengths": lambda: lengths_report.picture(*stores.lengths())},
        "language_sizes": {"language_sizes": lambda: language_sizes_report.picture(
            stores.chosen("language_sizes", language_sizes.TUNING)[0])},
        "table_1": {"table_1": lambda: table_1_report.picture(stores.chosen("table_1", table_1.TUNING)[0])},
    }  # fmt: skip
    there = {name: draw for store, draws in found.items() if store in stores for name, draw in draws.items()}
    if stores.random_steps():
        there["random_steps"] = lambda: random_steps_report.picture(stores.random_steps())
    return there | _ways_to_clip(stores) | _reach(stores)


def _ways_to_clip(stores: Stores) -> dict[str, Callable[[], Any]]:
    """Return the pictures of scripts/ways_to_clip.py: all tasks side by side, and the slower temporal order."""
    studies = stores.studies()
    found: dict[str, Callable[[], Any]] = {}
    if studies:
        found["ways_to_clip"] = lambda: ways_to_clip_pictures.summary(studies)
    for study in studies:
        if study.plan.name == "temporal_order_40":
            found["ways_to_clip_temporal_order_40"] = functools.partial(ways_to_clip_pictures.task, study)
    return found


def _reach(stores: Stores) -> dict[str, Callable[[], Any]]:
    """Return the pictures of scripts/reach.py, of designs that have runs."""

    def drawn(name: str, kind: str) -> Callable[[], Any]:
        return lambda: reach_report.pictures(name, DESIGNS[name], stores.reached(name))[kind]

    kinds = {"span": ("",), "figure_7": ("", "_rates")}
    return {f"reach_{name}{kind}": drawn(name, kind) for name in DESIGNS if stores.reached(name)
            for kind in kinds[name]}  # fmt: skip


def _generalization(stores: Stores) -> Any:
    points = generalization.points_of(stores.of("generalization", "measurement"))
    return generalization.picture(generalization.Options(), stores.of("generalization", "training"), points)


def _language(stores: Stores) -> Any:
    facts = stores.data("tinyshakespeare.txt")
    options = language.Options(text=Path(facts["key"]))
    parts: Any = LanguageParts(facts)
    return language.picture(options, parts, language_found(stores.rows("language")))
