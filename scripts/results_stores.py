"""The stores of docs/results.md, read as scripts read their own, and what stands in place of data of other people."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import random_steps
import reach
import ways_to_clip
from random_steps_design import Study
from rich.console import Console
from ways_to_clip_design import MOST_SEEDS, PLANS, VARIANTS, Plan, music_of

from nbflow.data import read_piano_rolls
from nbflow.data.sampler import DataTask, Trivial
from nbflow.storage.compact import read_copy
from nbflow.storage.store import Row, Store

# The code that made the runs of the comparisons, as their lines have it.
CODES = {"ways_to_clip": "0.1.0+f72d122a0a17"}
# More fresh runs than any way of clipping has: all that are there count.
SEEDS = 1_000


class Stores:
    """The compact copies in results/, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        return (self.folder / f"{name}.jsonl.xz").exists()

    @functools.cache  # noqa: B019 - as long as a report is made
    def rows(self, name: str) -> list[Row]:
        """Return the lines of a store, in the names of today."""
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "rows.jsonl")
            store.add(read_copy(self.folder / f"{name}.jsonl.xz"))
            return list(store.read().values())

    def of(self, name: str, kind: str) -> list[Row]:
        """Return the lines of a kind, in an order that does not depend on when they were made."""
        found = [row for row in self.rows(name) if row["kind"] == kind]
        places = ("optimizer", "lr", "place", "method", "seed", "policy", "length")
        return sorted(found, key=lambda row: [str(row.get(place, "")) for place in places[:4]]
                      + [row.get("seed", 0)] + [str(row.get(place, "")) for place in places[5:]])  # fmt: skip

    def lengths(self) -> tuple[list[Row], list[Row]]:
        """Return the trainings of scripts/lengths.py, and all that was measured of them."""
        measured = [row for kind in ("measurement", "stretched", "points") for row in self.of("lengths", kind)]
        return self.of("lengths", "training"), measured

    def chosen(self, name: str, tuning: int) -> tuple[list[Row], list[Row]]:
        """Return runs that are reported, and those that chose, whose seeds begin at `tuning`."""
        rows = self.of(name, "run")
        return [row for row in rows if row["seed"] < tuning], [row for row in rows if row["seed"] >= tuning]

    @functools.cache  # noqa: B019 - as long as a report is made
    def reached(self, name: str) -> list[Any]:
        """Return what scripts/reach.py finds of a design in its store; nothing where it has no balanced runs yet."""
        found = reach.Found()
        if "reach" in self:
            options: Any = reach.Options(design="span" if name == "span" else "figure_7")
            reach.gather(options, self.rows("reach"), found)
        return found.outcomes

    @functools.cache  # noqa: B019 - as long as a report is made
    def random_steps(self) -> list[Study]:
        """Return what scripts/random_steps.py finds in its store: the tasks that are all there, by the code of most."""
        if "random_steps" not in self:
            return []
        rows, done = self.rows("random_steps"), list[Study]()
        code = Counter(row["code"] for row in rows).most_common(1)[0][0]
        fresh = [row["seed"] for row in rows if row["code"] == code and row.get("seed", math.inf) < MOST_SEEDS]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "random_steps.jsonl.xz").write_bytes((self.folder / "random_steps.jsonl.xz").read_bytes())
            options = random_steps.Options(seeds=max(fresh, default=1) + 1, code=code, out=Path(folder))
            with contextlib.suppress(random_steps.MissingError):
                random_steps.studies(options, Console(quiet=True), done)
        return done

    def data(self, name: str) -> Row:
        """Return what is known of a data set."""
        return next(row for row in self.rows("data") if row["key"] == name)

    @functools.cache  # noqa: B019 - as long as a report is made
    def studies(self, name: str = "ways_to_clip") -> list[ways_to_clip.Study]:
        """Return what scripts/ways_to_clip.py finds in its store, of the tasks that are all there."""
        found: list[ways_to_clip.Study] = []
        if name not in self:
            return found
        timed = {(row["task"], row["variant"]) for row in self.rows(f"{name}.prepared") if "variant" in row}
        plans = [plan for plan in (*PLANS.values(), *self.rolls()) if plan.name in {task for task, _ in timed}]
        variants = tuple(way for way in VARIANTS if all((plan.name, way) in timed for plan in plans))
        with tempfile.TemporaryDirectory() as folder:
            for part in (name, f"{name}.prepared"):
                copy = self.folder / f"{part}.jsonl.xz"
                (Path(folder) / copy.name).write_bytes(copy.read_bytes())
            options = ways_to_clip.Options(variants=variants, seeds=SEEDS, pair_seeds=SEEDS, music_seeds=SEEDS,
                                           code=CODES[name], out=Path(folder), name=name)  # fmt: skip
            machinery = ways_to_clip.Machinery(options, Console(quiet=True))
            for plan in plans:
                with contextlib.suppress(ways_to_clip.MissingError):
                    found += ways_to_clip.studied(machinery, [plan])
        return found

    def rolls(self) -> list[Plan]:
        """Return the plans of the piano rolls of which something is known."""
        facts = [row for row in self.rows("data") if "parts" in row] if "data" in self else []
        return [music(one) for one in facts]


def facts_of(path: Path) -> Row:
    """Return what is kept of a file of piano rolls, a line of results/data.jsonl, so that reports need not have it."""
    rolls = read_piano_rolls(path)
    tasks = {part: rolls.task(part) for part in ("valid", "test")}
    one = tasks["test"]
    return {
        "key": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "title": path.stem,
        "channels": one.n_out, "loss": one.loss, "unit": one.unit,
        "parts": {part: {"identity": task.identity(), "trivial": [*task.trivial()]} for part, task in tasks.items()},
    }  # fmt: skip


class Kept(DataTask):
    """In place of a data set that need not be there: what it is known by, and what knowing frequencies reaches."""

    def __init__(self, facts: Row) -> None:
        self.facts = facts
        self.n_in = self.n_out = facts["channels"]
        self.loss, self.tokens = facts["loss"], False
        self.unit = facts["unit"]

    def identity(self) -> dict[str, Any]:
        found: dict[str, Any] = self.facts["identity"]
        return found

    def trivial(self, length: int = 0) -> Trivial:
        return Trivial(*self.facts["trivial"])


def music(facts: Row) -> Plan:
    """Return the plan of piano rolls from what is known of them."""
    parts = {part: Kept({**facts, **facts["parts"][part]}) for part in ("valid", "test")}
    return music_of(facts["title"], parts["valid"], parts["test"])


class LanguageParts:
    """In place of a text that need not be there."""

    def __init__(self, facts: Row) -> None:
        self.facts = facts

    def trivial(self) -> dict[str, float]:
        """Return what knowing how often each character stands in the text reaches."""
        found: dict[str, float] = self.facts["by_frequency"]
        return found
