"""Whole updates of a recurrent network side by side, nbflow, PyTorch and JAX, and how near to its machine nbflow runs.

An update is the gradient of a softmax loss at the last step, a clip of its joint norm and a step of SGD: float32, tanh,
dense inputs, the same first weights and the same data for all. PyTorch runs eagerly at its best number of threads, JAX
compiled at its best unroll of the scan, both found in this run. Each side has a process of its own, because thread
pools of two libraries in one process spin against each other; the processes take turns in short bursts, so that a
machine that slows down slows all of them. Times are medians over the bursts (quartiles in brackets), ratios are medians
of the ratios within a round. Before they are timed, the sides must agree on loss and gradient.

Usage: make bench-peers, or python scripts/bench_peers.py --shapes 50,20,6,50 200,20,6,100 --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

M = 4
LR = 1e-4
THRESHOLD = 1.0
SQUARE = 2048
SHAPES = ("50,20,6,50", "200,20,6,50", "200,20,6,100", "200,64,50,200", "100,64,100,512", "100,128,100,1024")
UNROLLS = (1, 2, 4, 8, 16, 32)
REPLICAS = (1, 2, 4, 8, 16, 32)
CURES_AT = REPLICAS_AT = (200, 20, 6, 100)
REPLICAS_SMALL = (50, 20, 6, 50)
CELLS_AT = ((200, 20, 6, 50), (100, 64, 100, 512))
GATES = {"tanh": 1, "lstm": 4, "gru": 3}
SECTIONS = ("updates", "cells", "rates", "cures", "replicas", "starts")
BEGIN, END = "<!-- written by scripts/bench_peers.py: begin -->", "<!-- written by scripts/bench_peers.py: end -->"
PAUSE = 0.01  # seconds in which idle threads of the side before go to sleep
AGREE = 2e-3

Shape = tuple[int, int, int, int]
Rows = list[list[str]]


# What is computed, by each side in its own way.


class Problem(NamedTuple):
    """Data and first weights: gradients neither explode nor fall among the denormal numbers."""

    inputs: Any
    targets: Any
    w_in: Any
    w_rec: Any
    bias: Any
    w_out: Any
    b_out: Any


def problem(shape: Shape, cell: str = "tanh") -> Problem:
    T, B, N, H = shape
    rng, gates = np.random.default_rng(0), GATES[cell]
    w_rec = [np.linalg.qr(rng.normal(size=(H, H)))[0] for _ in range(gates)]
    parts = (
        rng.normal(size=(T, B, N)), rng.integers(0, M, B), 0.1 * rng.normal(size=(N, gates * H)) / math.sqrt(N),
        np.concatenate(w_rec, axis=1), np.zeros(gates * H), rng.normal(size=(H, M)) / math.sqrt(H), np.zeros(M),
    )  # fmt: skip
    return Problem(*(part.astype("int32" if part.dtype.kind == "i" else "float32") for part in parts))


class Side:
    """A program that can be timed: made outside the timing, warmed by one update before each burst."""

    def update(self) -> None:
        raise NotImplementedError

    def ready(self) -> None:
        """Do what must be done before a burst."""

    def wait(self) -> None:
        """Wait until all updates are done."""

    def check(self) -> dict[str, Any]:
        """Return the loss and the norm of the gradient of w_rec, for the first weights."""
        raise NotImplementedError

    def run(self, count: int) -> float:
        """Return the seconds that `count` updates take."""
        self.ready()
        self.update()
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            self.update()
        self.wait()
        return time.perf_counter() - start


class Nbflow(Side):
    """`nf.gradient` with a workspace, `nf.clip`, and a step; `asked` goes to `nf.gradient`."""

    def __init__(self, shape: Shape, threads: int, replicas: int = 0, cell: str = "tanh", **asked: Any) -> None:
        self.nf: Any = importlib.import_module("nbflow")
        self.numba: Any = importlib.import_module("numba")
        nf, (T, B, N, H) = self.nf, shape
        self.threads, self.net = threads, nf.Network(cell=cell, n_in=N, n_hidden=H, n_out=M, loss="softmax")
        given = problem(shape, cell)
        lead = (replicas,) if replicas else ()
        bias_rec = np.zeros(self.net.size - sum(part.size for part in given[2:]), "float32")
        flat = np.concatenate([part.ravel() for part in (*given[2:5], bias_rec, *given[5:])])
        targets, weights = np.zeros((T, B), "int32"), np.zeros((T, B), "float32")
        targets[-1], weights[-1] = given.targets, 1 / B
        parts = (np.tile(part, (*lead, *(1,) * part.ndim)) for part in (given.inputs, targets, weights))
        self.theta, self.batch = np.tile(flat, (*lead, 1)) if lead else flat, nf.Batch(*parts)
        self.clip = nf.Clip("norm", THRESHOLD)
        if "flow" in asked:
            asked["flow"] = nf.Flow(asked["flow"], alpha=1.0)
        if "clip_microbatch" in asked:
            asked["clip_microbatch"] = tuple(asked["clip_microbatch"])
        self.space = nf.workspace(self.net, self.batch)
        self.gradient = functools.partial(nf.gradient, workspace=self.space, **asked)

    def ready(self) -> None:
        self.numba.set_num_threads(self.threads)

    def update(self) -> None:
        out = self.gradient(self.net, self.theta, self.batch)
        self.theta -= LR * self.nf.clip(self.net, out.d_theta, self.clip).d_theta

    def check(self) -> dict[str, Any]:
        out = self.gradient(self.net, self.theta, self.batch)
        w_rec = self.nf.unpack(self.net, out.d_theta).w_rec
        layer = self.numba.threading_layer()
        return {"loss": out.loss, "w_rec": float(np.linalg.norm(w_rec)), "layer": layer}


class NbflowTrain(Nbflow):
    """`nf.train`: its loop alone, without what it sets up before the first update."""

    def run(self, count: int) -> float:
        nf, started = self.nf, 0.0
        self.ready()

        def source(update: int) -> Any:
            nonlocal started
            if update == 1:
                started = time.perf_counter()
            return self.batch

        recipe = nf.Recipe(lr=LR, clip=self.clip, max_updates=count + 1, record_every=count + 1)
        ended: list[float] = []
        nf.train(self.net, self.theta, source, recipe, callbacks=[lambda run: ended.append(time.perf_counter())])
        return ended[-1] - started


class Torch(Side):
    """Eager nn.RNN, nn.LSTM or nn.GRU, nn.Linear, cross_entropy, clip_grad_norm_ and SGD, as their defaults are."""

    def __init__(self, shape: Shape, threads: int, cell: str = "tanh") -> None:
        self.torch: Any = importlib.import_module("torch")
        torch, given = self.torch, problem(shape, cell)
        self.threads = threads
        kind = {"tanh": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
        self.rnn, self.out = kind(shape[2], shape[3]), torch.nn.Linear(shape[3], M)
        names = {"weight_ih_l0": given.w_in.T, "weight_hh_l0": given.w_rec.T, "bias_ih_l0": given.bias}
        with torch.no_grad():
            for name, value in (names | {"bias_hh_l0": 0 * given.bias}).items():
                getattr(self.rnn, name).copy_(torch.from_numpy(value.copy()))
            self.out.weight.copy_(torch.from_numpy(given.w_out.T.copy()))
            self.out.bias.zero_()
        self.parameters = [*self.rnn.parameters(), *self.out.parameters()]
        self.sgd = torch.optim.SGD(self.parameters, lr=LR)
        self.inputs, self.targets = torch.from_numpy(given.inputs), torch.from_numpy(given.targets.astype("int64"))

    def ready(self) -> None:
        self.torch.set_num_threads(self.threads)

    def loss(self) -> Any:
        states, _ = self.rnn(self.inputs)
        return self.torch.nn.functional.cross_entropy(self.out(states[-1]), self.targets)

    def update(self) -> None:
        self.sgd.zero_grad()
        self.loss().backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, THRESHOLD)
        self.sgd.step()

    def check(self) -> dict[str, Any]:
        self.sgd.zero_grad()
        loss = self.loss()
        loss.backward()
        return {"loss": loss.item(), "w_rec": self.rnn.weight_hh_l0.grad.norm().item()}


class Jax(Side):
    """A compiled update: the input product outside the scan, parameters donated and kept on the device."""

    def __init__(self, shape: Shape, unroll: int) -> None:
        self.jax: Any = importlib.import_module("jax")
        self.unroll, given = unroll, problem(shape)
        self.theta = self.jax.device_put(given._asdict())
        self.data = self.theta.pop("inputs"), self.theta.pop("targets")
        self.compiled = self.jax.jit(self.next, donate_argnums=0)

    def loss(self, theta: Any, inputs: Any, targets: Any) -> Any:
        jax, numpy = self.jax, self.jax.numpy

        def step(h: Any, a: Any) -> Any:
            return numpy.tanh(a + h @ theta["w_rec"]), None

        start = numpy.zeros((inputs.shape[1], theta["bias"].size), inputs.dtype)
        h, _ = jax.lax.scan(step, start, inputs @ theta["w_in"] + theta["bias"], unroll=self.unroll)
        y = jax.nn.log_softmax(h @ theta["w_out"] + theta["b_out"])
        return -numpy.take_along_axis(y, targets[:, None], axis=1).mean()

    def next(self, theta: Any, inputs: Any, targets: Any) -> Any:
        numpy = self.jax.numpy
        loss, d = self.jax.value_and_grad(self.loss)(theta, inputs, targets)
        norm = numpy.sqrt(sum(numpy.vdot(part, part) for part in d.values()))
        scale = LR * numpy.minimum(1.0, THRESHOLD / norm)
        return {name: theta[name] - scale * d[name] for name in theta}, loss

    def update(self) -> None:
        self.theta, self.last = self.compiled(self.theta, *self.data)

    def wait(self) -> None:
        self.jax.block_until_ready((self.theta, self.last))

    def check(self) -> dict[str, Any]:
        loss, d = self.jax.jit(self.jax.value_and_grad(self.loss))(self.theta, *self.data)
        return {"loss": float(loss), "w_rec": float(self.jax.numpy.linalg.norm(d["w_rec"]))}


class Sgemm(Side):
    """NumPy's float32 matrix product of two squares."""

    def __init__(self, shape: Shape) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = rng.normal(size=(2, SQUARE, SQUARE)).astype("float32")
        self.c = np.empty_like(self.a)

    def update(self) -> None:
        np.matmul(self.a, self.b, out=self.c)


SIDES: dict[str, Callable[..., Side]] = {
    "nbflow": Nbflow, "train": NbflowTrain, "torch": Torch, "jax": Jax, "sgemm": Sgemm,
}  # fmt: skip


# A process for each side: requests and answers are lines of JSON.


def serve() -> None:
    """Answer requests until the input ends; what libraries print goes to the standard error."""
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
        made[program] = SIDES[how.pop("side")](tuple(how.pop("shape")), **how)
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
        command = [sys.executable, __file__, "--worker"]
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
            head += [f"GFLOP/s, {n} thread{'s' * (n > 1)}", "sgemm", "part of it"]
        return table([*head, "speed-up"], [self.rate_row(shape) for shape in self.shapes])

    def rate_row(self, shape: Shape) -> list[str]:
        say(f"rates at {named(shape)}")
        programs = {}
        for n in self.thread_counts:
            programs[f"nbflow {n}"] = self.nbflow(shape, n)
            programs[f"sgemm {n}"] = self.sgemm[n].make("sgemm", shape)
        times = self.time(programs)
        self.forget()
        cells = [named(shape)]
        for n in self.thread_counts:
            rate = flops(shape) / statistics.median(times[f"nbflow {n}"])
            peak = 2 * SQUARE**3 / statistics.median(times[f"sgemm {n}"])
            cells += [f"{rate / 1e9:.0f}", f"{peak / 1e9:.0f}", f"{rate / peak:.2f}"]
        return [*cells, f"{ratio(times, 'nbflow 1', f'nbflow {self.thread_counts[-1]}'):.2f}"]

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
        firsts, seconds = [], []
        for k in range(1 if self.quick else 3):
            say(f"first process, {k + 1}")
            with tempfile.TemporaryDirectory() as folder:
                firsts.append(start(folder))
                seconds += [start(folder) for _ in range(1 if self.quick else 3)]
        rows = [start_cells("first, with an empty cache", firsts), start_cells("second", seconds)]
        return table(["process", "import nbflow, s", "first gradient and clip, s", "whole process, s"], rows)


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
            raise SystemExit(f"bench_peers: at {at} nbflow finds {key} {ours[key]!r} and {name} {theirs[key]!r}")


def flops(shape: Shape) -> float:
    """Floating-point operations of an update: two of 2TBH^2 back, one forward, and 2TBNH in, forward and back."""
    T, B, N, H = shape
    return float(T * B * H * (6 * H + 4 * N))


START = """
import time
started = time.perf_counter()
import nbflow as nf
imported = time.perf_counter()
import numpy as np
net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
weights = np.zeros((50, 20), "float32")
weights[-1] = 1 / 20
batch = nf.Batch(np.ones((50, 20, 6), "float32"), np.zeros((50, 20), "int32"), weights)
out = nf.gradient(net, nf.init(net, "orthogonal", rng=0), batch)
nf.clip(net, out.d_theta, nf.Clip("norm", 1.0))
print(imported - started, time.perf_counter() - imported)
"""


def start(cache: str) -> list[float]:
    """Return the seconds of import, of the first gradient and clip, and of the whole of a new process."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", START], env=os.environ | {"NUMBA_CACHE_DIR": cache},
                          check=True, capture_output=True, text=True)  # fmt: skip
    whole = time.perf_counter() - begun
    return [*map(float, done.stdout.split()), whole]


def start_cells(name: str, seconds: Iterable[Sequence[float]]) -> list[str]:
    return [name, *(f"{statistics.median(column):.2f}" for column in zip(*seconds, strict=True))]


# What is printed and written.


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def named(shape: Shape) -> str:
    return ",".join(map(str, shape))


def spread(seconds: Sequence[float]) -> str:
    """Write a median and quartiles, in milliseconds."""
    low, middle, high = (f"{1000 * quartile:.3g}" for quartile in np.percentile(seconds, (25, 50, 75)))
    return f"{middle} ({low}-{high})"


def table(head: Sequence[str], rows: Rows) -> str:
    """Write a table that reads well as text and as Markdown."""
    lines = [list(head), *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in text)


TITLES = {
    "updates": "One whole update",
    "cells": "One whole update of a gated cell, beside nn.LSTM and nn.GRU",
    "rates": f"Part of the machine: T B H (6H + 4N) floating-point operations an update, over NumPy's {SQUARE} square "
    "sgemm with the same threads",
    "cures": "What a cure costs",
    "replicas": "R networks in one call",
    "starts": "The first process and the second",
}


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Say what the machine is: processor, cores, vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    name = fields.get("model name") or platform.processor() or platform.machine()
    ids = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    flags = fields.get("flags", "").split()
    vectors = next((word for flag, word in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "neither")
    return f"{name}{ids}, {cores()} cores, vector instructions: {vectors if flags else 'not known'}"


def versions() -> str:
    """Say what is installed, and which commit of nbflow this is."""
    found = [f"Python {platform.python_version()}", f"nbflow {importlib.import_module('nbflow').__version__}"]
    folder = Path(__file__).resolve().parent
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True)
    if git.returncode == 0:
        found[-1] += f" at {git.stdout.strip()}"
    for name in ("numba", "llvmlite", "numpy", "torch", "jax", "jaxlib"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def load() -> str:
    return ", ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "not known"


def report(options: argparse.Namespace) -> str:
    """Measure, and return everything as Markdown."""
    before, begun = load(), time.perf_counter()
    bench = Bench(options)
    try:
        tables = {name: getattr(bench, name)() for name in options.sections}
    finally:
        bench.close()
    facts = [
        f"Machine: {machine()}.",
        f"Versions: {versions()}." + (f" numba's threading layer: {bench.layer}." if bench.layer else ""),
        f"Command: `{shlex.join(['python', 'scripts/bench_peers.py', *options.command])}`, {today()}, "
        f"{time.perf_counter() - begun:.0f} s; {bench.rounds} rounds, each side in its own process; load average "
        f"before it {before}, after it {load()}.",
        *bench.notes,
    ]
    parts = ["\n".join(f"- {fact}" for fact in facts)]
    parts += [f"**{TITLES[name]}**\n\n{text}" for name, text in tables.items()]
    return "\n\n".join(parts)


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def write(path: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put text between the two marks of a file."""
    begin, end = marks
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{path} has no lines '{begin}' and '{end}'; put them where tables belong")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def shape_from(text: str) -> Shape:
    T, B, N, H = (int(part) for part in text.split(","))
    return T, B, N, H


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
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
    if options.worker:
        serve()
        return 0
    if options.write:
        write(options.write, options.write.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip())
    try:
        text = report(options)
    except MissingError as error:
        raise SystemExit(f"bench_peers: {error} is not installed here; run make bench-peers") from None
    print(text)
    if options.write:
        write(options.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
