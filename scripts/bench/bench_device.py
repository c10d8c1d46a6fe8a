"""See whether nbflow's GPU side is right and fast on this machine, in at most eight minutes, and write it down.

Stages, each in a process of its own with a limit of its own: what the device is; the tests that need a GPU; the same
numbers in two processes, bit by bit; registers and local memory of every grid; populations of networks, and one network
beside cuDNN where PyTorch is installed (TF32 off and on). After every stage the page is written anew, so that a run
which is killed leaves what it had. A stage that fails or takes too long is said to have done so, and the next begins.

Usage: make device
       python scripts/bench/bench_device.py --stages device bits registers --write docs/gpu.md
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import tyro
from peers_words import today, versions
from rich.console import Console

from nbflow.experiments.console import begin, tell

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
StageName = Literal["device", "tests", "bits", "registers", "population"]


class Stage(NamedTuple):
    title: str
    command: Sequence[str]
    seconds: float  #: its limit
    last: int | None = None  #: how many lines of it are kept, the last ones; None for all


def part(name: str) -> list[str]:
    return [sys.executable, str(HERE / "device_stages.py"), name]


# The tests of machine code and of each grid come first: where one fails, the larger ones need not be waited for.
TESTS = ["tests/test_cuda_code.py", "tests/test_cuda.py", "tests"]
STAGES: Mapping[StageName, Stage] = {
    "device": Stage("The device", part("device"), 60),
    "tests": Stage("Tests", [sys.executable, "-m", "pytest", *TESTS, "-q", "-m", "gpu", "--maxfail=10", "--tb=short",
                             "-p", "no:cacheprovider"], 240, last=40),
    "bits": Stage("The same bits in two processes", part("bits"), 90),
    "registers": Stage("Registers and local memory", part("registers"), 60),
    "population": Stage("Networks side by side, and one beside cuDNN", part("population"), 150),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Which stages run, for how long, and where the page goes."""

    stages: tuple[StageName, ...] = ("device", "tests", "bits", "registers", "population")
    """The stages, in this order."""
    minutes: float = 8.0
    """When the last one is ended, whether it is done or not."""
    out: Path = ROOT / "docs" / "gpu.md"
    """The page."""


@dataclass
class Found:
    """What each stage said so far."""

    parts: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.parts)


def page(parts: Sequence[str]) -> str:
    """Return the page of what is known."""
    head = f"""# On a GPU

Written by `make device`, {today()}: {versions()}. Times are medians of one run on one device; ratios between rows of a
table hold better than the times.
"""
    return "\n".join([head, *parts])


def written(path: Path, text: str) -> None:
    """Write a whole file, or leave the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def run(stage: Stage, limit: float) -> tuple[str, str]:
    """Return what a stage said, and what was wrong, if anything."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as heard:
        process = subprocess.Popen(
            stage.command, cwd=ROOT, stdout=heard, stderr=subprocess.STDOUT, start_new_session=True
        )
        wrong = ""
        try:
            code = process.wait(limit)
            wrong = f"It ended with status {code}." if code else ""
        except subprocess.TimeoutExpired:
            wrong = f"It was ended after {limit:.0f} s; this is what it had."
        finally:
            end(process)
        heard.seek(0)
        lines = heard.read().rstrip().splitlines()
    return "\n".join(lines if stage.last is None else lines[-stage.last :]), wrong


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has begun."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def work(options: Options, console: Console, found: Found) -> None:
    """Run every stage, and write the page after each."""
    if not 0 < options.minutes < float("inf"):
        raise ValueError(f"minutes is {options.minutes:g}; expected a number above 0. Give 8.")
    end = time.perf_counter() + 60 * options.minutes
    for name in options.stages:
        stage, begun = STAGES[name], time.perf_counter()
        limit = min(stage.seconds, end - begun)
        if limit <= 0:
            said, wrong = "", "There was no time left for it."
        else:
            tell(console, f"{stage.title}: {shlex.join(stage.command[1:])}")
            said, wrong = run(stage, limit)
        if name == "device" and wrong:
            raise ValueError(f"there is no device to look at: {(said.splitlines() or [wrong])[-1]}")
        found.failed += [name] if wrong else []
        body = f"```\n{said}\n```" if stage.last is not None and said else said
        seconds = time.perf_counter() - begun
        words = [
            f"## {stage.title}",
            *([f"**{wrong}**"] if wrong else []),
            *([body] if body else []),
            f"{seconds:.0f} s.",
        ]
        found.parts.append("\n\n".join(words) + "\n")
        written(options.out, page(found.parts))
        tell(console, f"{stage.title}: {wrong or 'done'} ({seconds:.0f} s)")


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Say where the page is."""
    if found.failed:
        tell(console, f"Not well: {', '.join(found.failed)}.")
    return [options.out]


def main(arguments: Sequence[str] | None = None) -> int:
    found = Found()
    code = begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), found)
    return code or int(bool(found.failed))


if __name__ == "__main__":
    sys.exit(main())
