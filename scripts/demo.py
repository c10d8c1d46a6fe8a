"""Two minutes on temporal order: plain SGD, SGD with clipping, and SGD with clipping and the flow penalty Omega.

A network reads 50 symbols. Two of them, one early and one halfway, are A or B, all others mean nothing, and at the end
it must say which came first and which second. To learn that, a gradient has to travel 20 to 45 steps back in time
without exploding (clipping sees to that) or vanishing (Omega does). Each method trains the same 6 networks, for
the same budget of updates or until all of them have solved it. All options of scripts/temporal_order.py are there to
play with. At 4,000 network updates a second, training takes less than two minutes.

Usage: make demo, or python scripts/demo.py --length 40
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import temporal_order
import tyro
from rich.console import Console
from temporal_order import Found, Options, Result

from nbflow.experiments.console import begin, tell

DEMO = Options(
    length=50, replicas=6, updates=25_000, stop_when_solved=True, evaluate_every=1000, evaluate_size=2000, name="demo"
)


def sentences(options: Options, results: Sequence[Result]) -> list[str]:
    """Say what was seen, and nothing that was not."""
    complete = [result for result in results if not result.run.interrupted]
    if len(complete) < len(set(options.methods)):
        return ["It was stopped before every method had its share, so the methods cannot be compared."]
    counts = ", ".join(f"{result.title} {result.solved}" for result in results)
    said = [f"Solved within {options.updates:,} updates, of {options.replicas} networks: {counts}."]
    if len(results) > 1:
        pairs = itertools.pairwise(results)
        said.append(" ".join(comparison(before, after, options.replicas) for before, after in pairs))
    relapses = sum(result.solved - result.stays for result in results)
    if relapses:
        said[0] += f" {relapses} of them had a later measurement above {100 * options.solved_below:g} % again."
    return [*said, gains(results)]


def comparison(before: Result, after: Result, count: int) -> str:
    """Compare the number of solved networks of two methods."""
    from scipy.stats import fisher_exact  # here, since it takes seconds that nobody should wait for a first word

    if before.solved == after.solved:
        return f"{after.title} solved as many as {before.title}."
    word = "more" if after.solved > before.solved else "fewer"
    chance = fisher_exact([[before.solved, count - before.solved], [after.solved, count - after.solved]]).pvalue
    doubt = "too few networks to exclude chance" if chance > 0.05 else "hardly chance"
    return f"{after.title} solved {word} than {before.title} ({doubt}: p = {chance:.2g} by Fisher's exact test)."


def gains(results: Sequence[Result]) -> str:
    """Say what became of the gradient on its way back, in the second half of training."""
    words = ", ".join(f"{last_gain(result):.2f} ({result.title})" for result in results)
    return (
        "Median gain of the gradient for each step back in time, over networks and the second half of training: "
        f"{words}. Below 1 it vanishes, above 1 it explodes."
    )


def last_gain(result: Result) -> float:
    means = np.array(result.gain["mean"], dtype=float)
    late = means[len(means) // 2 :]
    return float(np.median(late[np.isfinite(late)])) if np.isfinite(late).any() else math.nan


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Report as scripts/temporal_order.py does, and say what was seen."""
    files = temporal_order.report(options, found, console)
    for sentence in sentences(options, found.results):
        tell(console, sentence)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, default=DEMO, args=arguments, description=__doc__)
    return begin(temporal_order.work, report, options, Found())


if __name__ == "__main__":
    sys.exit(main())
