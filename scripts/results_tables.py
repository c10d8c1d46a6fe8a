"""The tables of docs/results.md, each from its store; scripts/results.py puts them where they belong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import clip_bias_report
import compare_clipping_design as design
import compare_clipping_verdicts as verdicts
import descent
import generalization
import language
import language_sizes
import language_sizes_report
import lengths_report
import overflow_report
import reach_report
import success_rate
import table_1
import table_1_report
from language_training import PARTS
from reach_design import DESIGNS
from results_stores import Stores

import nbflow as nf
from nbflow import statistics
from nbflow.experiments.methods import TITLES
from nbflow.storage.store import Row

MARKS = {verdicts.EQUIVALENT: "**=**", verdicts.DIFFERENT: "**≠**", verdicts.UNCLEAR: "**?**"}
METHODS = ("sgd", "clip", "clip+omega", "omega")


# Markdown.


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(interval: nf.Interval, digits: int = 0) -> str:
    low, high = (f"{100 * end:.{digits}f}" for end in interval[1:])
    return f"{low}-{high} %"


def points(interval: Any) -> str:
    """Return a difference of two rates in points, with its interval."""
    return f"{100 * interval[0]:+.0f} points ({100 * interval[1]:+.0f} to {100 * interval[2]:+.0f})"


def probability(p: float) -> str:
    if p < 0.0001:
        return "below 0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


# The comparison of ways to clip.


def compared(studies: Sequence[Any]) -> str:
    """Return every way on every task, beside clipping by norm."""
    heads = ["", *(study.plan.title for study in studies)]
    rows = []
    for name in studies[0].tuned:
        title = design.VARIANTS[name].title.replace("preact.", "preactivation")
        rows.append([title, *(beside(study, name) for study in studies)])
    return grid(heads, rows)


def beside(study: Any, name: str) -> str:
    """Return a way on a task: runs solved, and what it costs relative to clipping by norm."""
    one, seen = study.outcomes[name], study.compared[name]
    if name == design.REFERENCE:
        if study.plan.is_music:
            return f"{seen.typical.value:.3f} nats"
        return f"{one.solved}/{one.runs}, median {seen.median:,.0f} updates"
    solved, digits = ("", 4) if study.plan.is_music else (f"{one.solved}/{one.runs} ", 2)
    ratio = "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*seen.ratio, d=digits)
    return f"{MARKS[seen.verdict]} {solved}{ratio}"


def costs(studies: Sequence[Any]) -> str:
    """Return what an update of each way costs on the slower temporal order."""
    study = next(study for study in studies if study.plan.name == "temporal_order_40")
    heads = [design.VARIANTS[name].title.replace("preact.", "preactivation") for name in study.cost]
    return grid(heads, [[f"{cost:.2f}" for cost in study.cost.values()]])


def ends(studies: Sequence[Any]) -> str:
    """Return how many chosen settings stand at an end of what was tried."""
    rows = []
    for study in studies:
        tuned = {name: setting for name, setting in study.tuned.items() if design.VARIANTS[name].measure
                 and not design.VARIANTS[name].scales}  # fmt: skip
        tried = {name: study.thresholds[design.VARIANTS[name].measure] for name in tuned}
        at_v = sum(v in (tried[name][0], tried[name][-1]) for name, (_, v) in tuned.items())
        at_lr = sum(design.at_an_end(design.VARIANTS[name], lr) for name, (lr, _) in tuned.items())
        rows.append([study.plan.title, f"{at_v} of {len(tuned)}", f"{at_lr} of {len(tuned)}"])
    return grid(["", "thresholds at an end", "learning rates at an end"], rows)


def rare(studies: Sequence[Any]) -> str:
    """Return random steps at thresholds that few gradients exceed, and no clip at all."""
    heads = ["", *(study.plan.title for study in studies)]
    chosen = []
    for study in studies:
        words = ("95 % quantile", "99 % quantile", "the greatest", "ten times the greatest")
        chosen.append(words[study.thresholds["norm_rare"].index(study.tuned["random_rare"][1])])
    rows = [
        [design.VARIANTS[name].title, *(beside(study, name) for study in studies)] for name in ("random_rare", "none")
    ]
    return grid(heads, [["threshold chosen", *chosen], *rows])


def verdicts_of(studies: Sequence[Any], names: Sequence[str]) -> str:
    """Return on how many tasks each way is equivalent to clipping by norm, different, or can't be told."""
    rows = []
    for name in names:
        counts = [sum(study.compared[name].verdict == word for study in studies) for word in MARKS]
        title = design.VARIANTS[name].title.replace("preact.", "preactivation")
        rows.append([title, *(f"{count} of {len(studies)}" for count in counts)])
    return grid(["beside norm", *MARKS], rows)


# Success against length.


def solved(rows: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return how many runs of each method solved each length."""
    cells = {cell[1:3]: cell for cell in success_rate.count(rows)}
    found = []
    for method in METHODS:
        row = [cells[method, length] for length in lengths]
        found.append([TITLES[method], *(rate(cell.solved, cell.runs) for cell in row)])
    runs = cells[METHODS[0], lengths[0]].runs
    return grid([f"solved, of {runs}", *(f"L = {length}" for length in lengths)], found)


def rate(count: int, runs: int, digits: int = 0) -> str:
    return f"{count} ({percent(statistics.success_rate(count, runs), digits)})"


def span_differences(rows: Sequence[Row]) -> str:
    """Return what is claimed of the span as differences, with exact tests adjusted for being five."""
    found = span_tests(rows)
    return grid(["", "difference", "p (Fisher)", "p (Holm, of five)"],
                [[words, points(interval), probability(p), probability(adjusted)]
                 for words, interval, p, adjusted in found])  # fmt: skip


def span_tests(rows: Sequence[Row]) -> list[tuple[str, nf.Interval, float, float]]:
    """Return the five differences of the span: words, Newcombe's interval, Fisher's p, and that by Holm."""
    from scipy.stats import fisher_exact

    cells = {cell[1:3]: cell for cell in success_rate.count(rows)}
    pairs = [("clip+omega", "clip", 50), ("clip+omega", "clip", 100), ("clip", "sgd", 50), ("clip+omega", "omega", 100),
             ("clip+omega", "omega", 50)]  # fmt: skip
    found = []
    for one, other, length in pairs:
        a, b = cells[one, length], cells[other, length]
        interval = statistics.rate_difference((a.solved, b.solved), (a.runs, b.runs))
        p = float(fisher_exact([[a.solved, a.runs - a.solved], [b.solved, b.runs - b.solved]]).pvalue)
        found.append((f"{TITLES[one]} less {TITLES[other]}, L = {length}", interval, p))
    adjusted = statistics.holm([p for *_, p in found])
    return [(*one, float(p)) for one, p in zip(found, adjusted, strict=True)]


def kinds(rows: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return solved runs of figure 7, a line for each kind of first weights."""
    cells = {cell[:3]: cell.solved for cell in success_rate.count(rows)}
    inits = dict.fromkeys(
        key[0] for key in sorted(cells, key=lambda key: ("sigmoid", "basic_tanh", "smart_tanh").index(key[0]))
    )
    found = [[init, *(", ".join(str(cells[init, method, length]) for method in METHODS) for length in lengths)]
             for init in inits]  # fmt: skip
    return grid(["SGD, clipping, clipping and Omega, Omega", *(f"L = {length}" for length in lengths)], found)


# Length.


def generalized(trained: Sequence[Row], measured: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return how often each network of scripts/generalization.py is wrong at each length."""
    wrong = {(row["seed"], row["length"]): (row["wrong"], row["size"]) for row in measured}
    heads = [f"seed {row['seed']}, {generalization.state(row)}" for row in trained]
    rows = []
    for length in lengths:
        rows.append([f"{length:,}", *(f"{n:,} ({percent(statistics.success_rate(n, size), 2)})"
                                      for n, size in (wrong[row["seed"], length] for row in trained))])  # fmt: skip
    return grid(["wrong of 10,000 at length", *heads], rows)


def rich_to_markdown(table: Any) -> str:
    """Return a table of rich as one of Markdown."""
    heads = [str(column.header).replace("\n", ", ") for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    return grid(heads, zip(*([str(cell) for cell in column] for column in cells), strict=True))


# Language.


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


def published_table(stores: Stores) -> str:
    """Return the section of table 1 of Pascanu, Mikolov, Bengio (2013)."""
    final, _ = stores.chosen("table_1", table_1.TUNING)
    return section(
        "Table 1 of Pascanu, Mikolov, Bengio (2013): piano rolls",
        "python scripts/table_1.py --data Piano_midi.mat Nottingham.mat",
        "design-table-1-piano-rolls",
        [*table_1_report.tables(final), *(f"**{words}**" for words in table_1_report.verdicts(final))],
        "![validation over epochs, and test losses beside the published ones](images/table_1.png)",
    )


def section(title: str, command: str, design: str, parts: Sequence[Any], image: str) -> str:
    """Return a section that stands in the page as soon as its store is there."""
    found = [f"### {title}", f"```\n{command}\n```", f"What was fixed before the runs: [design](methods.md#{design})."]
    for part in parts:
        found += [part] if isinstance(part, str) else [f"{part.title}:", rich_to_markdown(part)]
    return "\n\n".join([*found, image])


# The verdicts.


def claims(stores: Stores) -> str:
    """Return every claim with its verdict, the effect behind it with an interval, and how many runs that is from."""
    every = stores.studies("compare_clipping", tuple(design.DEFAULT))
    bits = language.differences(language.Options(text=Path("text")), language_found(stores.rows("language")))
    lstm = bits["clip+omega less lstm"]
    rows = [
        ["1", "clipping element by element and by norm work alike", tally(every, ["value"]),
         "cost relative to norm (90 %): " + "; ".join(ratio(study, "value") for study in every), runs_of(every)],
        ["2", "a joint scale keeps the direction and bounds the step", *direction_claim(stores)],
        ["3", "a random step above the threshold works almost as well", "doesn't hold", random_steps(every),
         runs_of(every)],
        overflow_claim(stores),
        ["5", "the average of clipped minibatch gradients is not the clipped average; large gradients and their "
              "company lose weight", *average_claim(stores)],
        ["6", "clipping element by element is still descent", *descent_claim(stores)],
        ["7", "clipping the back-propagated vector behaves like the others", tally(every, HIDDEN),
         f"{sum(study.compared[name].verdict == verdicts.EQUIVALENT for study in every for name in HIDDEN)} of "
         f"{len(every) * len(HIDDEN)} equivalent", runs_of(every)],
        *span_claims(stores),
        ["8c", "what is learnt on 50 to 200 steps is known at 5,000", *length_claim(stores)],
        ["8d", "Omega with clipping does not match LSTM on language", "doesn't hold at 23,000 parameters",
         f"{lstm['value']:+.3f} bits ({lstm['low']:+.3f} to {lstm['high']:+.3f})", "3 a method"],
        *abundant_claim(stores),
    ]  # fmt: skip
    return grid(["", "claim", "verdict", "effect (95 %)", "runs"], rows)


def abundant_claim(stores: Stores) -> list[list[str]]:
    """Return the line of claim 8d where data are abundant, if that was seen."""
    if "language_sizes" not in stores:
        return []
    final, _ = stores.chosen("language_sizes", language_sizes.TUNING)
    word, effects = language_sizes_report.judged(final)
    seeds = {row["seed"] for row in final}
    claim = "the same where data are abundant, tanh with Omega less LSTM"
    return [["8e", claim, word, effects, f"{len(seeds)} a method"]]


HIDDEN = tuple(name for name in design.DEFAULT if name.startswith("hidden"))


def tally(studies: Sequence[Any], names: Sequence[str]) -> str:
    """Return on how many tasks ways are equivalent, different, or can't be told."""
    counts = {word: sum(study.compared[name].verdict == word for study in studies for name in names) for word in MARKS}
    return ", ".join(f"{word} on {count} of {len(studies) * len(names)}" for word, count in counts.items() if count)


def ratio(study: Any, name: str) -> str:
    digits = 3 if study.plan.is_music else 2
    return "{} {:.{d}f} ({:.{d}f}-{:.{d}f})".format(
        study.plan.title.split(" (")[0], *study.compared[name].ratio, d=digits
    )


def runs_of(studies: Sequence[Any]) -> str:
    """Return how many fresh runs each way had on each task."""
    return f"{max(one.runs for study in studies for one in study.outcomes.values())} a cell"


def random_steps(studies: Sequence[Any]) -> str:
    """Return how much less random steps solve than clipping by norm, over all tasks that are solved or not."""
    seen = [study for study in studies if not study.plan.is_music]
    solved = [sum(study.outcomes[name].solved for study in seen) for name in ("random", "norm")]
    runs = [sum(study.outcomes[name].runs for study in seen) for name in ("random", "norm")]
    difference = statistics.rate_difference((solved[0], solved[1]), (runs[0], runs[1]))
    return f"solved {solved[0]} of {runs[0]}, norm {solved[1]} of {runs[1]}: {points(difference)}"


def direction_claim(stores: Stores) -> list[str]:
    """Return verdict, effect and runs of what clipping by norm does to direction and length."""
    if "descent" not in stores:
        return ["holds", "below", "1 network, 1,200 steps"]
    rows = stores.of("descent", "network")
    every = [one for row in rows for one in descent.seen_of(row, "norm")]
    least, longest = min(one["cosine"][0] for one in every), max(one["longest"] for one in every)
    eps = 2.0**-23  # of float32, in which cosine and length are sums of thousands of numbers
    holds = 1 - least < 16 * eps and longest - 1 < 16 * eps
    effect = f"least cosine 1 - {1 - least:.0e}, greatest length (1 + {max(longest - 1, 0):.0e}) v"
    return ["holds" if holds else "doesn't hold", effect, steps_of(rows)]


def steps_of(rows: Sequence[Row]) -> str:
    """Return of how many networks and steps a finding is."""
    steps = sum(one["steps"] for row in rows for one in descent.seen_of(row, "norm"))
    return f"{len(rows)} networks, {steps:,} steps"


def descent_claim(stores: Stores) -> list[str]:
    """Return verdict, effect and runs of whether clipping element by element lowers the loss."""
    if "descent" not in stores:
        return ["holds", "below", "1 network, 1,200 steps"]
    rows = stores.of("descent", "network")
    own = descent.part_of(rows, "value", "descends", "steps")
    true = descent.part_of(rows, "value", "true_descends", "true_steps")
    words = [f"{'holds' if part.low > least else 'not shown'} for {of}"
             for part, least, of in ((own, 0.99, "the minibatch's loss"), (true, 0.5, "the true loss"))]  # fmt: skip
    effect = f"lowered: that of the minibatch {descent.words(own)}, the true one {descent.words(true)}"
    return [f"as a direction holds; steps of lr 0.01: {', '.join(words)}", effect, steps_of(rows)]


def overflow_claim(stores: Stores) -> list[str]:
    """Return the line of claim 4: from real trainings where there are any, else as it was."""
    claim = ["4", "a random step of length v moves away from where the gradient is Inf or NaN"]
    if "overflow" not in stores:
        return [*claim, "holds at the brink, where no step does as well; not deep in overflow", "below", "32 a cell"]
    outcomes = stores.of("overflow", "outcome")
    effects = []
    for optimizer, which in overflow_report.settings(outcomes):
        seen = {policy: overflow_report.back(outcomes, (optimizer, which), policy).values()
                for policy in ("random", "skip", "shrink")}  # fmt: skip
        counts = [rate(sum(one), len(one)) for one in seen.values()]
        effects.append(f"{optimizer} {overflow_report.RATES[which]} {', '.join(counts)}")
    networks = len(overflow_report.back(outcomes, ("sgd", "own"), "random"))
    effect = f"back of {networks}, by random steps, no step, shrink: {'; '.join(effects)}"
    return [*claim, overflow_report.verdict(outcomes), effect, f"{networks} networks an optimizer"]


def average_claim(stores: Stores) -> list[str]:
    """Return verdict, effect and runs of what clipping does to the gradient on average."""
    if "clip_bias" not in stores:
        return ["holds", "below", "2 networks"]
    every = clip_bias_report.settings(stores.of("clip_bias", "network"))
    short = ("distance", "weight of large examples", "of those beside them")
    effects = [f"{what} {', '.join(clip_bias_report.effect(part, setting) for setting in every)}"
               for what, part in zip(short, clip_bias_report.PARTS, strict=False)]  # fmt: skip
    where = "; ".join(setting.title for setting in every)
    return [clip_bias_report.verdict(every), f"{'; '.join(effects)} ({where})", f"{len(every[0].seen)} networks each"]


def span_claims(stores: Stores) -> list[list[str]]:
    """Return the lines of claims 8a and 8b: of tuned rates where they were run, else of one rate for all."""
    heads = [["8a", "Omega with clipping widens the span"], ["8b", "Omega fails without clipping"]]
    outcomes = stores.reached("span")
    if any(one.family == "core" for one in outcomes):
        found = reach_report.tested(DESIGNS["span"], outcomes)
        words = reach_report.span_verdict(found), reach_report.clipping_verdict(found, outcomes)
        questions = [test.question for test in DESIGNS["span"].tests[:2]]
        runs = f"{min(len(one.seeds) for one in outcomes if one.family == 'core')} a cell"
        return [[*head, verdict, reached(found, question), runs]
                for head, verdict, question in zip(heads, words, questions, strict=True)]  # fmt: skip
    span = span_tests(stores.rows("span"))
    wider = "; ".join(f"{words.split(', ')[1]}: {points(interval)}, p {probability(adjusted)} (Holm)"
                      for words, interval, _, adjusted in span[:2])  # fmt: skip
    alone = f"L = 100: {points(span[3][1])}, p {probability(span[3][3])} (Holm)"
    return [[*heads[0], "holds at 50 steps, in this budget", wider, "10 a cell"],
            [*heads[1], "holds at 100 steps, not at 20", alone, "10 a cell"]]  # fmt: skip


def reached(found: Sequence[reach_report.Tested], question: str) -> str:
    """Return the effects behind a question of scripts/reach.py."""
    return "; ".join(f"L = {one.length}: {points(one.difference)}, p {reach_report.probability(one.adjusted)} (Holm)"
                     for one in found if one.question == question)  # fmt: skip


def of_reach(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return the tables of scripts/reach.py; nothing of a design that has no runs yet."""

    def made(name: str, table: Callable[..., Any]) -> Callable[[], str]:
        return lambda: rich_to_markdown(table(DESIGNS[name], stores.reached(name)))

    kinds: dict[str, Callable[..., Any]] = {
        "": reach_report.of_rates, "_settings": reach_report.of_settings, "_tests": reach_report.of_tests,
    }  # fmt: skip
    return {f"reach_{name}{kind}": made(name, table) if stores.reached(name) else str
            for name in DESIGNS for kind, table in kinds.items()}  # fmt: skip


def length_claim(stores: Stores) -> list[str]:
    """Return verdict, effect and runs of what is learnt short and asked for long."""
    from scipy.stats import fisher_exact

    if "lengths" not in stores:
        return ["not seen", "below", "3 networks"]
    _, measured = stores.lengths()
    seen = {place: [clean for method in lengths_report.SHADES
                    for clean in lengths_report.clean(measured, place, method, "paper").values()]
            for place in ("anywhere", "paper")}  # fmt: skip
    (one, other), (n, m) = zip(*((sum(cleans), len(cleans)) for cleans in seen.values()), strict=True)
    p = float(fisher_exact([[one, n - one], [other, m - other]]).pvalue)
    difference = statistics.rate_difference((one, other), (n, m))
    holds = p < 0.05 and one > other
    verdict = "holds with symbols anywhere in training, not at the paper's positions"
    verdict = verdict if holds else f"can't tell with {max(n, m) // 2} of the 10 seeds"
    effect = (f"no error at any length: {rate(one, n)} of {n} trained anywhere, {rate(other, m)} of {m} at the paper's "
              f"positions: {points(difference)}, p {probability(p)} (Fisher)")  # fmt: skip
    return [verdict, effect, f"{max(n, m) // 2} an arm"]


# All of them.


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; of a store that is there."""
    every = tuple(design.DEFAULT)
    some = ("norm", "none", "random_rare")

    def networks() -> list[Row]:
        return stores.of("clip_bias", "network")

    found: dict[str, dict[str, Callable[[], str]]] = {
        "compare_clipping": {
            "claims": lambda: claims(stores),
            "compared": lambda: compared(stores.studies("compare_clipping", every)),
            "costs": lambda: costs(stores.studies("compare_clipping", every)),
            "ends": lambda: ends(stores.studies("compare_clipping", every)),
            "verdicts_by_way": lambda: verdicts_of(stores.studies("compare_clipping", every), every[1:]),
        },
        "rare": {"rare": lambda: rare(stores.studies("rare", some))},
        "span": {
            "span": lambda: solved(stores.rows("span"), (20, 50, 100)),
            "span_differences": lambda: span_differences(stores.rows("span")),
        },
        "figure_7": {"figure_7": lambda: kinds(stores.rows("figure_7"), (10, 20, 30, 40))},
        "generalization": {
            "generalization": lambda: generalized(
                stores.of("generalization", "training"), stores.of("generalization", "measurement"),
                (50, 100, 200, 350, 500, 1000, 5000),
            ),
        },
        "language": {
            "language": lambda: characters(language_found(stores.rows("language")), stores.data("tinyshakespeare.txt")),
            "language_differences": lambda: language_differences(
                language_found(stores.rows("language")), stores.data("tinyshakespeare.txt")
            ),
        },
        "clip_bias": {
            f"clip_bias_{name}": functools.partial(lambda table: rich_to_markdown(table(networks())), table)
            for name, table in clip_bias_report.TABLES.items()
        },
        "descent": {"descent": lambda: rich_to_markdown(descent.table(stores.of("descent", "network")))},
        "overflow": {
            "overflow": lambda: rich_to_markdown(overflow_report.of_networks(stores.of("overflow", "outcome"))),
            "overflow_tests": lambda: rich_to_markdown(overflow_report.of_tests(stores.of("overflow", "outcome"))),
        },
        "lengths": {
            "lengths": lambda: rich_to_markdown(lengths_report.of_arms(*stores.lengths())),
            "lengths_by_length": lambda: rich_to_markdown(lengths_report.by_length(*stores.lengths())),
            "lengths_points": lambda: rich_to_markdown(lengths_report.by_points(*stores.lengths())),
            "lengths_by_part": lambda: rich_to_markdown(lengths_report.by_part(*stores.lengths())),
        },
    }  # fmt: skip
    # Whose stores are yet to come: nothing stands between their marks until then.
    later = {"language_sizes": lambda: sized(stores), "table_1": lambda: published_table(stores)}
    made = {name: make for store, makes in found.items() if store in stores for name, make in makes.items()}
    return made | {name: make if name in stores else str for name, make in later.items()} | of_reach(stores)
