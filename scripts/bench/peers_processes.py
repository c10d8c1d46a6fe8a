"""A process for each side of scripts/bench/bench_peers.py, and bursts in turn; requests and answers are lines of JSON.

Run as a program this is such a process.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from peers_regimes import NbflowRegime
from peers_sides import SIDES, Shape, Side

PAUSE = 0.01  # seconds in which idle threads of the side before go to sleep


def serve() -> None:
    """Answer requests until the input ends; what libraries print goes to the standard error.

    Ctrl-C is for whoever asks: it closes the input.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made: dict[int, Side] = {}
    for line in sys.stdin:
        try:
            answer = respond(made, **json.loads(line))
        except ModuleNotFoundError as error:
            answer = {"missing": error.name}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def respond(made: dict[int, Side], do: str, program: int = 0, count: int = 0, **how: Any) -> dict[str, Any]:
    if do == "make":
        made[program] = (SIDES | {"regime": NbflowRegime})[how.pop("side")](tuple(how.pop("shape")), **how)
        return {}
    if do == "forget":
        made.clear()
        return {}
    if do == "check":
        return made[program].check()
    return {"seconds": made[program].run(count)}


class MissingError(Exception):
    """A library is not installed."""


class Worker:
    """A process that times programs of one library; its threads have the machine to themselves while it does."""

    def __init__(self, threads: int = 0) -> None:
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        env = os.environ | ({name: str(threads) for name in names} if threads else {})
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.numbers = itertools.count()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "the process died"}')
        if "missing" in answer:
            raise MissingError(answer["missing"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def make(self, side: str, shape: Shape, **how: Any) -> Program:
        number = next(self.numbers)
        self.ask(do="make", program=number, side=side, shape=shape, **how)
        return Program(self, number, how)

    def forget(self) -> None:
        """Give the memory of all programs back."""
        self.ask(do="forget")

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Program:
    """What a worker has made and can run."""

    def __init__(self, worker: Worker, number: int, how: dict[str, Any]) -> None:
        self.worker, self.number, self.how = worker, number, how

    def check(self) -> dict[str, Any]:
        return self.worker.ask(do="check", program=self.number)

    def burst(self, count: int) -> float:
        """Return the seconds of one update in a burst of `count`."""
        time.sleep(PAUSE)
        seconds: float = self.worker.ask(do="run", program=self.number, count=count)["seconds"]
        return seconds / count

    @functools.cached_property
    def estimate(self) -> float:
        """Seconds of one update, roughly."""
        count, seconds = 1, self.burst(1)
        while count * seconds < 0.02:
            count *= 4
            seconds = self.burst(count)
        return seconds


Times = dict[str, list[float]]


def alternate(programs: Mapping[str, Program], seconds: float, rounds: int) -> Times:
    """Time programs in turn, `rounds` bursts each, about `seconds` for all bursts of one; each round another begins."""
    found: Times = {name: [] for name in programs}
    counts = {name: max(1, round(seconds / rounds / program.estimate)) for name, program in programs.items()}
    names = list(programs)
    for k in range(rounds):
        first = k % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(programs[name].burst(counts[name]))
    return found


def fastest(programs: Sequence[Program], seconds: float) -> Program:
    """Return the fastest of several ways to run the same thing."""
    times = alternate({str(k): program for k, program in enumerate(programs)}, seconds, 3)
    return min(zip(programs, times.values(), strict=True), key=lambda pair: statistics.median(pair[1]))[0]


def ratio(times: Times, above: str, below: str) -> float:
    """Return the median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


if __name__ == "__main__":
    serve()
