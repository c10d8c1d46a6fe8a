"""Language (claims 8d and 8e), from scripts/language.py and scripts/language_sizes.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import language
import language_sizes
import language_sizes_report
from language_training import PARTS
from results_markdown import grid, section
from results_stores import Stores

from nbflow.storage.store import Row


def language_found(rows: Sequence[Row]) -> Any:
    """Return what scripts/language.py finds in its store."""
    final = sorted((row for row in rows if row["seed"] < language.TUNING), key=lambda row: row["seed"])
    tuned = [row for row in rows if row["seed"] >= language.TUNING]
    return language.Found(final, tuned, language.choose(tuned))


def characters(found: Any, facts: Row) -> str:
    """Return bits per character of every method on every part."""
    options = language.Options(text=Path(facts["key"]))
    rows = []
    for method in (method for method in language.TITLES if found.of(method)):
        title = language.TITLES[method]
        means = [language.words(language.mean_of(options, found.bits(method, part))) for part in PARTS]
        rows.append([title, f"{found.chosen[method]:g}", *(mean.replace("±", "± ") for mean in means)])
    rows.append(["each character by its frequency", "", *(f"{facts['by_frequency'][part]:.3f}" for part in PARTS)])
    return grid(["", "learning rate", *PARTS], rows)


def language_differences(found: Any, facts: Row) -> str:
    """Return how far apart methods are on the test part."""
    options = language.Options(text=Path(facts["key"]))
    names = {"clip+omega less clip": "tanh with Omega less tanh without", "clip less lstm": "tanh less LSTM",
             "clip+omega less lstm": "tanh with Omega less LSTM"}  # fmt: skip
    rows = []
    for name, one in language.differences(options, found).items():
        alike = "alike" if one["alike"] else "more" if one["low"] > 0 else "fewer" if one["high"] < 0 else "can't tell"
        rows.append([names[name], f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})", alike])
    return grid(["bits on test", "difference (Welch, 95 %)", f"within {options.margin:g}: alike"], rows)


def sized(stores: Stores) -> str:
    """Return the section of three sizes in one pass."""
    final, tuned = stores.chosen("language_sizes", language_sizes.TUNING)
    return section(
        "What size and abundance change",
        "python scripts/language_sizes.py --texts kingjames.txt tinyshakespeare.txt",
        "design-characters-where-data-are-abundant-claim-8",
        [*language_sizes_report.tables(final, tuned), f"**{language_sizes_report.verdict(final)}**"],
        "![bits per character against parameters, updates and seconds](images/language_sizes.png)",
    )


def abundant_claim(stores: Stores) -> list[list[str]]:
    """Return the line of claim 8d where data are abundant, if that was seen."""
    if "language_sizes" not in stores:
        return []
    final, _ = stores.chosen("language_sizes", language_sizes.TUNING)
    word, effects = language_sizes_report.judged(final)
    seeds = {row["seed"] for row in final}
    claim = "the same where data are abundant, tanh with Omega less LSTM"
    return [["8e", claim, word, effects, f"{len(seeds)} a method"]]


def language_claims(stores: Stores) -> list[list[str]]:
    """Return the lines of claims 8d and 8e."""
    bits = language.differences(language.Options(text=Path("text")), language_found(stores.rows("language")))
    lstm = bits["clip+omega less lstm"]
    effect = f"{lstm['value']:+.3f} bits ({lstm['low']:+.3f} to {lstm['high']:+.3f})"
    verdict = "can't tell: at 23,000 parameters, a megabyte read 80 times, it takes fewer bits"
    scarce = ["8d", "Omega with clipping does not match LSTM on language", verdict, effect, "3 a method"]
    return [scarce, *abundant_claim(stores)]


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; nothing stands between them without runs."""
    found: dict[str, Callable[[], str]] = {
        "language_sizes": (lambda: sized(stores)) if "language_sizes" in stores else str
    }
    if "language" in stores:
        for name, table in (("language", characters), ("language_differences", language_differences)):
            found[name] = functools.partial(_of_shakespeare, stores, table)
    return found


def _of_shakespeare(stores: Stores, table: Callable[[Any, Row], str]) -> str:
    return table(language_found(stores.rows("language")), stores.data("tinyshakespeare.txt"))
