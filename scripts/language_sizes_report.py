"""What scripts/language_sizes.py says of its runs: tables, the verdict and a picture, from the lines of its store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from language_training import PARTS
from rich.table import Table

from nbflow import plot, statistics
from nbflow.experiments.console import headed
from nbflow.records import Interval
from nbflow.storage.store import Row

TITLES = {"clip": "tanh", "clip+omega": "tanh + Omega", "lstm": "LSTM", "gru": "GRU"}
MARKS = ("o", "s", "^", "D")
STYLES = (":", "--", "-")
# Differences that answer something, the first less the second; the first of them is the claim's.
PAIRS = (("clip+omega", "lstm"), ("clip+omega", "gru"), ("clip", "lstm"), ("clip+omega", "clip"))
# Characters for each parameter from which on data are called abundant, none of them seen twice.
ABUNDANT = 20.0
# Bits per character; a difference that lies within it, with its interval, counts as none.
MARGIN = 0.02
LEVEL = 0.05


def cells(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return texts and sizes, in the order of the tables."""
    texts = sorted({row["text"] for row in rows})
    return [(text, size) for text in texts for size in sorted({row["size"] for row in rows if row["text"] == text})]


def of(rows: Sequence[Row], cell: tuple[str, int], method: str) -> list[Row]:
    """Return the runs of a method in a cell, by seed."""
    found = [row for row in rows if (row["text"], row["size"], row["method"]) == (*cell, method)]
    return sorted(found, key=lambda row: row["seed"])


def methods(rows: Sequence[Row]) -> list[str]:
    return [method for method in TITLES if any(row["method"] == method for row in rows)]


def words(values: Sequence[float], digits: int = 3) -> str:
    """Return a mean, and half of Student's interval where there is one."""
    found = statistics.mean_interval(values)
    width = f" ± {found.high - found.mean:.{digits}f}" if math.isfinite(found.high) else ""
    return f"{found.mean:.{digits}f}{width}"


def tables(final: Sequence[Row], tuned: Sequence[Row]) -> list[Table]:
    """Return the table of bits, that of differences, and that of learning rates."""
    return [of_bits(final), of_differences(final), of_rates(final, tuned)]


def of_bits(rows: Sequence[Row]) -> Table:
    """Return what each method reaches in each cell."""
    found = headed("Bits per character after one pass: means over seeds, 95 % intervals", "text", "parameters",
                   "characters a parameter", "method", "units", "learning rate", "seeds", *PARTS,
                   "clip acted (%)", "minutes of a core")  # fmt: skip
    for cell in cells(rows):
        for method in methods(rows):
            mine = of(rows, cell, method)
            if not mine:
                continue
            bits = [words([row["bits"][part] for row in mine]) for part in PARTS]
            acted = [row["clipped"] for row in mine if row["clipped"] is not None]
            found.add_row(
                cell[0], f"{mine[0]['parameters']:,}", f"{mine[0]['per_parameter']:.0f}", TITLES[method],
                str(mine[0]["n_hidden"]), f"{mine[0]['lr']:g}", str(len(mine)), *bits,
                f"{100 * np.mean(acted):.0f}" if acted else "-",
                f"{np.mean([row['core_seconds'] for row in mine]) / 60:.1f}",
            )  # fmt: skip
    return found


class Tested(NamedTuple):
    """How far apart two methods are on the test part of a cell."""

    cell: tuple[str, int]
    pair: tuple[str, str]
    per_parameter: float
    value: float
    low: float
    high: float
    alike: bool
    p: float  # adjusted by Holm over the cells of the pair

    @property
    def abundant(self) -> bool:
        return self.per_parameter >= ABUNDANT


def differences(rows: Sequence[Row]) -> list[Tested]:
    """Return the differences of all pairs in all cells where each has two seeds (Welch)."""
    from scipy.stats import ttest_ind

    found: list[Tested] = []
    for pair in PAIRS:
        mine: list[Tested] = []
        for cell in cells(rows):
            runs = [of(rows, cell, method) for method in pair]
            bits = [[row["bits"]["test"] for row in one] for one in runs]
            if min(map(len, bits)) < 2 or not all(math.isfinite(value) for one in bits for value in one):
                continue
            # At alpha .025 its interval has 95 %.
            seen = statistics.equivalence(bits[0], bits[1], MARGIN, alpha=LEVEL / 2)
            p = float(ttest_ind(*bits, equal_var=False).pvalue)
            mine.append(Tested(cell, pair, runs[0][0]["per_parameter"], *seen.difference, seen.equivalent, p))
        if mine:
            adjusted = statistics.holm([one.p for one in mine])
            found += [one._replace(p=float(p)) for one, p in zip(mine, adjusted, strict=True)]
    return found


def of_differences(rows: Sequence[Row]) -> Table:
    """Return how far apart methods are."""
    title = f"Bits on test, the first less the second: Welch, 95 %; p by Holm over cells; alike within {MARGIN:g}"
    found = headed(title, "difference", "text", "parameters", "data", "bits", "p", "")  # fmt: skip
    for one in differences(rows):
        data = "abundant" if one.abundant else f"{one.per_parameter:.0f} a parameter"
        says = "alike" if one.alike else ("more" if one.value > 0 else "fewer") if one.p < LEVEL else "can't tell"
        found.add_row(" less ".join(TITLES[method] for method in one.pair), one.cell[0], f"{one.cell[1]:,}", data,
                      f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})", f"{one.p:.3g}", says)  # fmt: skip
    return found


def of_rates(final: Sequence[Row], tuned: Sequence[Row]) -> Table:
    """Return what each learning rate reached on validation."""
    found = headed("Learning rates: bits on validation, the best in brackets", "text", "parameters", "method", "tried")
    for cell in cells(tuned):
        for method in methods(tuned):
            mine: dict[float, list[float]] = {}
            for row in of(tuned, cell, method):
                mine.setdefault(row["lr"], []).append(row["bits"]["validation"])
            means = {lr: float(np.mean(mine[lr])) for lr in sorted(mine)}
            best = min(means, key=lambda lr: (not math.isfinite(means[lr]), means[lr]), default=None)
            said = [f"({lr:g}: {bits:.3f})" if lr == best else f"{lr:g}: {bits:.3f}" for lr, bits in means.items()]
            if said:
                found.add_row(cell[0], f"{cell[1]:,}", TITLES[method], "  ".join(said))
    return found


def judged(rows: Sequence[Row]) -> tuple[str, str]:
    """Return whether Omega with clipping does not match an LSTM where data are abundant, and by how much."""
    seen = [one for one in differences(rows) if one.pair == PAIRS[0] and one.abundant]
    if not seen:
        return "can't tell", "no cell with abundant data has two seeds of both"
    effects = "; ".join(f"{one.cell[0]}, {one.cell[1]:,}: {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
                        for one in seen)  # fmt: skip
    worse = sum(one.value > 0 and one.p < LEVEL for one in seen)
    matched = sum(one.high < MARGIN for one in seen)
    if worse == len(seen):
        word = "holds"
    elif matched == len(seen):
        word = "doesn't hold"
    else:
        word = f"holds in {worse} of {len(seen)} cells, doesn't in {matched}"
    return word, f"{effects} bits"


def verdict(rows: Sequence[Row]) -> str:
    """Say it in a sentence."""
    word, effects = judged(rows)
    return f"That tanh with Omega does not match LSTM where data are abundant: {word} ({effects})."


def picture(rows: Sequence[Row]) -> Any:
    """Draw bits on test against parameters, and on validation against updates and seconds, a line for each text."""
    texts = sorted({row["text"] for row in rows})
    sizes = sorted({row["size"] for row in rows})
    words = (
        "One pass, the state carried over. Left: test at the end, means and 95 % intervals over seeds. Middle and "
        f"right: validation on the way, means over seeds; {', '.join(STYLE_NAMES[-len(sizes) :])}: "
        f"{', '.join(f'{size:,}' for size in sizes)} parameters."
    )
    title = "Characters of a text, by size"
    with plot.page(title, words, (11, 3.6 * len(texts) + 0.8), dpi=130, wspace=0.08) as shown:
        grid = shown.subplots(len(texts), 3, squeeze=False)
        for line, text in zip(grid, texts, strict=True):
            for k, method in enumerate(methods(rows)):
                draw(line, [row for row in rows if (row["text"], row["method"]) == (text, method)], sizes, k)
            line[0].set_ylabel(f"{text}\ntest (bits per character)")
            line[1].set_ylabel("validation (bits per character)")
            line[0].set_xscale("log")
            line[0].set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
            line[0].set_xticks(sizes, [f"{size:,}" for size in sizes])
            line[0].minorticks_off()
            line[1].locator_params(axis="x", nbins=4)
            line[1].xaxis.set_major_formatter("{x:,.0f}")
            line[2].set_xscale("log")
            plot.plain_log(line[2].xaxis)
            for axes in line:
                plot.grid(axes, "y")
        for axes, label in zip(grid[-1], ("parameters", "updates", "seconds of a core"), strict=True):
            axes.set_xlabel(label)
        plot.legend_below(grid[-1][0], columns=4)
    return shown


STYLE_NAMES = ("dotted", "dashed", "solid")


def draw(line: Sequence[Any], rows: Sequence[Row], sizes: Sequence[int], k: int) -> None:
    """Draw a method in the three panels of a text."""
    ends = []
    for size in sizes:
        mine = [row for row in rows if row["size"] == size]
        if not mine:
            continue
        colour, style = plot.COLOURS[k], STYLES[-len(sizes) :][sizes.index(size) % len(STYLES)]
        found = statistics.mean_interval([row["bits"]["test"] for row in mine])
        ends.append((mine[0]["parameters"], found))
        updates = np.array(mine[0]["evaluations"]["update"])
        scores = np.mean([row["evaluations"]["score"] for row in mine], axis=0)
        each = np.mean([row["core_seconds"] / row["updates"] for row in mine])
        line[1].plot(updates, scores, color=colour, linestyle=style, linewidth=1.4)
        line[2].plot(each * updates, scores, color=colour, linestyle=style, linewidth=1.4)
    if ends:
        places = [parameters * 1.04 ** (k - 1.5) for parameters, _ in ends]
        means = [Interval(found.mean, found.low, found.high) for _, found in ends]
        plot.intervals(places, means, colour=plot.COLOURS[k], marker=MARKS[k], label=TITLES[rows[0]["method"]],
                       ax=line[0])  # fmt: skip
