"""Whole updates of a recurrent network side by side, nbflow, PyTorch and JAX, and how near to its machine nbflow runs.

An update is the gradient of a softmax loss at the last step, a clip of its joint norm and a step of SGD: float32, tanh,
dense inputs, the same first weights and the same data for all. PyTorch runs eagerly at its best number of threads, JAX
compiled at its best unroll of the scan, both found in this run. Each side has a process of its own, because thread
pools of two libraries in one process spin against each other; the processes take turns in short bursts, so that a
machine that slows down slows all of them. Times are medians over the bursts (quartiles in brackets), ratios are medians
of the ratios within a round. Before they are timed, the sides must agree on loss and gradient.

Usage: make bench-peers
       python scripts/bench/bench_peers.py --shapes 50,20,6,50 200,20,6,100 --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers_processes import MissingError, Program, Times, Worker, alternate, fastest, ratio
from peers_regimes import REGIMES
from peers_sides import SHAPES, SQUARE, Shape, named, shape_from
from peers_starts import starts
from peers_words import (
    Rows,
    between,
    finish,
    load,
    machine,
    marks,
    measured,
    say,
    spread,
    table,
    today,
    versions,
    write,
)

from nbflow.experiments.machine import cores as cores

UNROLLS = (1, 2, 4, 8, 16, 32)
REPLICAS = (1, 2, 4, 8, 16, 32)
CURES_AT = REPLICAS_AT = (200, 20, 6, 100)
REPLICAS_SMALL = (50, 20, 6, 50)
CELLS_AT = ((200, 20, 6, 50), (100, 64, 100, 512))
REGIMES_AT = ((200, 20, 6, 50), (1000, 20, 6, 50))
SECTIONS = ("updates", "cells", "rates", "regimes", "cures", "replicas", "starts")
MARKS = marks("bench_peers.py")
AGREE = 2e-3


# The tables.


class Bench:
    """The workers, how long they run, and the tables."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.shapes: list[Shape] = options.shapes
        self.quick = options.quick
        self.seconds, self.rounds = (0.1, 3) if options.quick else (1.2, 9)
        self.thread_counts = sorted({1, cores()})
        self.unrolls = UNROLLS[:2] if options.quick else UNROLLS
        self.notes: list[str] = []
        self.layer = ""
        self.own, self.torch, self.jax = Worker(), Worker(), Worker()
        self.sgemm = {threads: Worker(threads) for threads in self.thread_counts}

    def close(self) -> None:
        for worker in (self.own, self.torch, self.jax, *self.sgemm.values()):
            worker.close()

    def forget(self) -> None:
        for worker in (self.own, self.torch, self.jax, *self.sgemm.values()):
            worker.forget()

    def time(self, programs: Mapping[str, Program]) -> Times:
        return alternate(programs, self.seconds, self.rounds)

    def nbflow(self, shape: Shape, threads: int = 0, side: str = "nbflow", **asked: Any) -> Program:
        return self.own.make(side, shape, threads=threads or cores(), **asked)

    # One whole update, against others.

    def updates(self) -> str:
        head = ["T,B,N,H", "nbflow, ms", "nf.train, ms", "PyTorch, ms", "threads", "JAX, ms", "unroll",
                "PyTorch / nbflow", "JAX / nbflow", "PyTorch / nf.train", "JAX / nf.train"]  # fmt: skip
        return table(head, [self.update_row(shape) for shape in self.shapes])

    def update_row(self, shape: Shape) -> list[str]:
        say(f"updates at {named(shape)}")
        programs = {"nbflow": self.nbflow(shape), "train": self.nbflow(shape, side="train")}
        ways = {
            "torch": [functools.partial(self.torch.make, "torch", shape, threads=n) for n in self.thread_counts],
            "jax": [functools.partial(self.jax.make, "jax", shape, unroll=n) for n in self.unrolls if n <= shape[0]],
        }
        seen = programs["nbflow"].check()
        self.layer = seen["layer"]
        for name, makers in ways.items():
            try:
                rivals = [make() for make in makers]
            except MissingError as error:
                self.note(f"{error} is not installed here, so it is left out.")
                continue
            agree(named(shape), seen, name, rivals[0].check())
            programs[name] = fastest(rivals, self.seconds / 5)
        times = self.time(programs)
        self.forget()
        return update_cells(shape, programs, times)

    # Gated cells, against PyTorch's.

    def cells(self) -> str:
        shapes = [min(self.shapes)] if self.quick else CELLS_AT
        rows = [self.cell_row(cell, shape) for cell in ("lstm", "gru") for shape in shapes]
        return table(["cell", "T,B,N,H", "nbflow, ms", "PyTorch, ms", "threads", "PyTorch / nbflow"], rows)

    def cell_row(self, cell: str, shape: Shape) -> list[str]:
        say(f"{cell} at {named(shape)}")
        programs = {"nbflow": self.nbflow(shape, cell=cell)}
        try:
            rivals = [self.torch.make("torch", shape, threads=n, cell=cell) for n in self.thread_counts]
        except MissingError as error:
            self.note(f"{error} is not installed here, so it is left out.")
        else:
            agree(f"{cell}, {named(shape)}", programs["nbflow"].check(), "torch", rivals[0].check())
            programs["torch"] = fastest(rivals, self.seconds / 5)
        times = self.time(programs)
        self.forget()
        theirs = ["-", "-", "-"]
        if "torch" in times:
            theirs = [
                spread(times["torch"]),
                f"{programs['torch'].how['threads']}",
                f"{ratio(times, 'torch', 'nbflow'):.2f}",
            ]
        return [cell, named(shape), spread(times["nbflow"]), *theirs]

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    # Against the machine.

    def rates(self) -> str:
        head = ["T,B,N,H"]
        for n in self.thread_counts:
            head += [f"GFLOP/s, {n} thread{'s' * (n > 1)}", "sgemm", "part of it", "nf.train, part"]
        return table([*head, "speed-up"], [self.rate_row(shape) for shape in self.shapes])

    def rate_row(self, shape: Shape) -> list[str]:
        say(f"rates at {named(shape)}")
        programs = {}
        for n in self.thread_counts:
            programs[f"nbflow {n}"] = self.nbflow(shape, n)
            programs[f"train {n}"] = self.nbflow(shape, n, side="train")
            programs[f"sgemm {n}"] = self.sgemm[n].make("sgemm", shape)
        times = self.time(programs)
        self.forget()
        cells = [named(shape)]
        for n in self.thread_counts:
            rate, training = (flops(shape) / statistics.median(times[f"{side} {n}"]) for side in ("nbflow", "train"))
            peak = 2 * SQUARE**3 / statistics.median(times[f"sgemm {n}"])
            cells += [f"{rate / 1e9:.0f}", f"{peak / 1e9:.0f}", f"{rate / peak:.2f}", f"{training / peak:.2f}"]
        return [*cells, f"{ratio(times, 'nbflow 1', f'nbflow {self.thread_counts[-1]}'):.2f}"]

    # Where gradients vanish and explode.

    def regimes(self) -> str:
        head = ["cell", "T,B,N,H", *(f"{regime.name}, ms [decades]" for regime in REGIMES), "slowest / fastest"]
        shapes = REGIMES_AT[:1] if self.quick else REGIMES_AT
        cells = ("tanh",) if self.quick else ("tanh", "sigmoid", "relu", "linear", "lstm", "gru")
        return table(head, [self.regime_row(cell, shape) for shape in shapes for cell in cells])

    def regime_row(self, cell: str, shape: Shape) -> list[str]:
        say(f"regimes of {cell} at {named(shape)}")
        programs = {
            regime.name: self.nbflow(shape, side="regime", cell=cell, decades=regime.decades) for regime in REGIMES
        }
        decades = {name: program.check()["decades"] for name, program in programs.items()}
        times = self.time(programs)
        self.forget()
        most = max(ratio(times, *pair) for pair in itertools.permutations(times, 2))
        return [cell, named(shape), *(f"{spread(times[name])} [{decades[name]:+.0f}]" for name in times), f"{most:.2f}"]

    # What cures cost.

    def cures(self) -> str:
        say(f"cures at {named(CURES_AT)}")
        ways: dict[str, dict[str, Any]] = {
            "plain gradient": {},
            "Omega, immediate": {"flow": "norm"},
            "clip by example": {"clip_example": 1.0},
            "clip by microbatch of 5": {"clip_microbatch": (5, 1.0)},
        }
        times = self.time({name: self.nbflow(CURES_AT, **asked) for name, asked in ways.items()})
        self.forget()
        rows = [[name, spread(times[name]), f"{ratio(times, name, 'plain gradient'):.2f}"] for name in ways]
        return table([f"update at {named(CURES_AT)}", "ms", "times plain"], rows)

    # Many networks in one call.

    def replicas(self) -> str:
        rows: Rows = []
        for shape in (REPLICAS_SMALL, REPLICAS_AT):
            rows += [self.replica_row(shape, R) for R in (REPLICAS[:2] if self.quick else REPLICAS)]
        head = ["T,B,N,H", "R"] + [f"network updates/s, {n} thread{'s' * (n > 1)}" for n in self.thread_counts]
        return table([*head, "speed-up by threads", "per network, times one alone"], rows)

    def replica_row(self, shape: Shape, R: int) -> list[str]:
        say(f"{R} replicas at {named(shape)}")
        programs = {f"{n}": self.nbflow(shape, n, replicas=R) for n in self.thread_counts}
        programs["alone"] = self.nbflow(shape)
        times = self.time(programs)
        self.forget()
        most = str(self.thread_counts[-1])
        rates = [f"{R / statistics.median(times[str(n)]):,.0f}" for n in self.thread_counts]
        gain = R * ratio(times, "alone", most)
        return [named(shape), f"{R}", *rates, f"{ratio(times, '1', most):.2f}", f"{gain:.2f}"]

    # The first process and the second.

    def starts(self) -> str:
        return starts(1 if self.quick else 3)


def update_cells(shape: Shape, programs: Mapping[str, Program], times: Times) -> list[str]:
    cells = [named(shape), spread(times["nbflow"]), spread(times["train"])]
    for name, key in (("torch", "threads"), ("jax", "unroll")):
        cells += [spread(times[name]), f"{programs[name].how[key]}"] if name in times else ["-", "-"]
    for below, name in itertools.product(("nbflow", "train"), ("torch", "jax")):
        cells.append(f"{ratio(times, name, below):.2f}" if name in times else "-")
    return cells


def agree(at: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any]) -> None:
    """Refuse to compare sides that compute different things."""
    for key in ("loss", "w_rec"):
        if not math.isclose(ours[key], theirs[key], rel_tol=AGREE):
            raise SystemExit(f"bench_peers: at {at} nbflow finds {key} {ours[key]} and {name} {theirs[key]}")


def flops(shape: Shape) -> float:
    """Floating-point operations of an update: two of 2TBH^2 back, one forward, and 2TBNH in, forward and back."""
    T, B, N, H = shape
    return float(T * B * H * (6 * H + 4 * N))


TITLES = {
    "updates": "One whole update",
    "cells": "One whole update of a gated cell, beside nn.LSTM and nn.GRU",
    "rates": f"Part of the machine: T B H (6H + 4N) floating-point operations an update, over NumPy's {SQUARE} square "
    "sgemm with the same threads",
    "regimes": "Where gradients vanish and explode: in brackets the decades from the last state to the first",
    "cures": "What a cure costs",
    "replicas": "R networks in one call",
    "starts": "The first process and the second",
}


def report(options: argparse.Namespace) -> int:
    """Measure, print and write; return the exit code."""
    before, begun = load(), time.perf_counter()
    bench = Bench(options)
    try:
        tables, stopped = measured({TITLES[name]: getattr(bench, name) for name in options.sections})
    finally:
        bench.close()
    facts = [
        f"Machine: {machine()}.",
        f"Versions: {versions()}." + (f" numba's threading layer: {bench.layer}." if bench.layer else ""),
        f"Command: `{shlex.join(['python', 'scripts/bench/bench_peers.py', *options.command])}`, {today()}, "
        f"{time.perf_counter() - begun:.0f} s; {bench.rounds} rounds, each side in its own process; load average "
        f"before it {before}, after it {load()}.",
        *bench.notes,
    ]
    return finish(facts, tables, stopped, options.write, MARKS)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=shape_from, default=[shape_from(text) for text in SHAPES],
                        metavar="T,B,N,H", help=f"by default {' '.join(SHAPES)}")  # fmt: skip
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="by default all")
    parser.add_argument("--quick", action="store_true", help="a trial: too short for numbers to be quoted")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this file, too")
    found = parser.parse_args(arguments)
    found.command = list(arguments)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    if options.write:
        write(options.write, between(options.write, MARKS), MARKS)
    try:
        return report(options)
    except MissingError as error:
        raise SystemExit(f"bench_peers: {error} is not installed here; run make bench-peers") from None


if __name__ == "__main__":
    sys.exit(main())
