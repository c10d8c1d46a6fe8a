"""Where an update of nbflow goes: its phases, what more cores would bring, its products beside BLAS, long sequences.

One thread, float32, tanh, the updates of scripts/bench/bench_peers.py. Every time is the least of several bursts, the
sides of a comparison in turn: on a shared machine a least time repeats, a median does not.

Usage: python scripts/bench/bench_parts.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# BLAS reads it when it is loaded: as many threads as the product that it is compared with.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import peers_sides as peers
import peers_words as words

MARKS = words.marks("bench_parts.py")
SHAPES = tuple(peers.shape_from(text) for text in peers.SHAPES)
LONG, EVERY = (100_000, 1, 6, 50), 320
BURSTS, FEW = 25, 5  # FEW where one call is a burst
SECONDS = 0.02  # of a burst, about
CORES = (2, 4, 8, 16, 64)
CORES_AT = tuple(peers.shape_from(text) for text in ("200,20,6,50", "200,20,6,100", "200,64,50,200", "100,128,100,512",
                                                     "100,512,100,200"))  # fmt: skip


def least(sides: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the least seconds of one call of each side, bursts in turn."""
    counts = {}
    for name, call in sides.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, int(SECONDS / (time.perf_counter() - start)))
    found = dict.fromkeys(sides, float("inf"))
    for _ in range(BURSTS if min(counts.values()) > 1 else FEW):
        for name, call in sides.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            found[name] = min(found[name], (time.perf_counter() - start) / counts[name])
    return found


# Phases: programs of more and more of them; a phase is what the next program takes longer.


def phases() -> str:
    head = ["T,B,N,H", "update, ms", "packing", "forward", "back", "weight gradients", "sum of shards", "the rest",
            "GFLOP/s forward", "back", "weight gradients"]  # fmt: skip
    return words.table(head, [phase_row(shape) for shape in SHAPES])


def runner(side: peers.Nbflow) -> Callable[..., Callable[[], None]]:
    """Return what makes a program of the kernels run by its name, without checks, clip and step."""
    from nbflow.cpu import program
    from nbflow.cpu.purpose import PLAIN
    from nbflow.cpu.second import build_nothing
    from nbflow.cpu.workspace import Workspace
    from nbflow.model import _arguments

    side.ready()
    checked = _arguments.computation(side.net, side.theta, side.batch)
    program.PROGRAMS["nothing"] = (build_nothing,)

    def running(name: str, target: Any = None) -> Callable[[], None]:
        # A workspace for each, since a program stays in it.
        space = side.nf.workspace(side.net, side.batch).of(Workspace, PLAIN, checked)
        program.set_program(space, name)
        space.set_state(None)
        space.point_to(checked.theta, checked.inputs, checked.targets, checked.weights, target)

        def run() -> None:
            side.ready()  # the number of threads, which another side may have set
            program.execute(space)

        return run

    return running


def phase_row(shape: peers.Shape) -> list[str]:
    words.say(f"phases at {peers.named(shape)}")
    side = peers.Nbflow(shape, 1)
    running, d_theta = runner(side), np.empty_like(side.theta)
    times = least({
        "packing": running("nothing"), "forward": running("losses"), "back": running("trace"),
        "weights": running("gradient"), "sum": running("gradient", d_theta), "update": side.update,
    })  # fmt: skip
    steps = list(times.values())
    parts = np.diff([0.0, *steps])
    T, B, N, H = shape
    recurrent, inputs = 2 * T * B * H * H, 2 * T * B * N * H
    rates = [
        flops / part
        for flops, part in zip((recurrent + inputs, recurrent, recurrent + inputs), parts[1:4], strict=True)
    ]
    shares = [f"{max(part / times['update'], 0.0):.1%}" for part in parts]
    return [peers.named(shape), f"{1000 * times['update']:.3g}", *shares, *(f"{rate / 1e9:.0f}" for rate in rates)]


# More cores than there are: shards are handed out one by one, packing and summing in pieces; the rest is one core's.


def cores() -> str:
    head = ["T,B,N,H", "rows of a shard", "shards", "ms, 1 thread", "ms, 2 threads", "measured, 2 cores",
            *(f"expected, {count} cores" for count in CORES)]  # fmt: skip
    return words.table(head, [row for shape in CORES_AT for row in core_rows(shape)])


def core_rows(shape: peers.Shape) -> list[list[str]]:
    """Return a row for each way to cut a batch: as nbflow does, and into shards of a half and a quarter of its rows."""
    buffers: Any = importlib.import_module("nbflow.cpu.buffers")
    words.say(f"cores at {peers.named(shape)}")
    kept, B = buffers.shard_rows, shape[1]
    chosen = kept(peers.Nbflow(shape, 1).net, B)
    cuts = {part: even(B, part * len(chosen)) for part in (1, 2, 4) if part * len(chosen) <= B}
    sides: dict[str, Callable[[], Any]] = {}
    try:
        for part, cut in cuts.items():
            buffers.shard_rows = functools.partial(as_cut, cut)
            for threads in (1, 2):
                sides[f"{part} on {threads}"] = updating(shape, threads)
            running = runner(peers.Nbflow(shape, 1))
            sides[f"{part} packing"], sides[f"{part} loops"] = running("nothing"), running("gradient")
        times = least(sides)
    finally:
        buffers.shard_rows = kept
    found = []
    for part, cut in cuts.items():
        one, two = times[f"{part} on 1"], times[f"{part} on 2"]
        of_a_shard = (times[f"{part} loops"] - times[f"{part} packing"]) / len(cut)
        alone = max(one - len(cut) * of_a_shard, 0.0)
        cells = [f"{1000 * one:.3g}", f"{1000 * two:.3g}", f"{times['1 on 1'] / two:.2f}"]
        for count in CORES:
            cells.append(f"{times['1 on 1'] / (alone + -(-len(cut) // count) * of_a_shard):.1f}")
        rows = f"{max(cut)} (as it is)" if part == 1 else f"{max(cut)}"
        found.append([peers.named(shape), rows, f"{len(cut)}", *cells])
    return found


def as_cut(cut: list[int], *_: Any) -> list[int]:
    return cut


def even(batch: int, count: int) -> list[int]:
    """Cut a batch into so many shards."""
    return [batch // count + (k < batch % count) for k in range(count)]


def updating(shape: peers.Shape, threads: int) -> Callable[[], None]:
    side = peers.Nbflow(shape, threads)
    side.ready()
    side.update()  # which cuts the workspace

    def update() -> None:
        side.ready()
        side.update()

    return update


# Products: ours and BLAS on the same numbers.


class Product(NamedTuple):
    """c (rows, columns) of a sum over `depth`; `tape` where the right factor lies in rows, as in a weight gradient."""

    name: str
    rows: int
    depth: int
    columns: int
    tape: bool = False


def products_of(shape: peers.Shape) -> list[Product]:
    import nbflow as nf
    from nbflow.cpu.gradient import segment_steps
    from nbflow.cpu.shards import shard_rows

    _, B, N, H = shape
    rows = shard_rows(nf.Network("tanh", N, H, peers.M), B)[0]
    return [
        Product("inputs, one step", rows, N + 1, H),
        Product("recurrent", rows, H, H),
        Product("weight gradient", H, rows * segment_steps(rows), H, tape=True),
        Product("outputs, one step", rows, H, peers.M),
    ]


def ceiling() -> Product:
    """Return one tile over one chunk, all of which stays in the first-level cache: no product can be faster."""
    from nbflow.cpu.product import CHUNK, TILE_ROWS, lanes, panel_vectors

    return Product("one tile", TILE_ROWS, CHUNK, panel_vectors() * lanes(np.float32))


def products() -> str:
    rows = []
    for shape in SHAPES[1:]:
        words.say(f"products at {peers.named(shape)}")
        rows += [[peers.named(shape), *product_cells(product)] for product in products_of(shape)]
    rows.append(["any", *product_cells(ceiling())])
    head = ["T,B,N,H", "product", "rows, depth, columns", "nbflow, GFLOP/s", "BLAS, GFLOP/s", "nbflow / BLAS"]
    return words.table(head, rows)


@functools.cache
def loops() -> tuple[Any, Any]:
    """Return compiled loops over our product and over BLAS: a call from Python takes longer than a small product."""
    from numba import njit

    from nbflow.cpu.memory import call_product

    @njit
    def ours(n, address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):  # type: ignore[no-untyped-def]
        for _ in range(n):
            call_product(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add)

    @njit
    def blas(n, a, b, c):  # type: ignore[no-untyped-def]
        for _ in range(n):
            np.dot(a, b, c)

    return ours, blas


def product_cells(product: Product) -> list[str]:
    from nbflow.cpu.product import build_product, lanes, panel_vectors

    rng = np.random.default_rng(0)
    name, rows, depth, columns, tape = product
    panel = panel_vectors() * lanes(np.float32)
    padded = -(-columns // lanes(np.float32)) * lanes(np.float32)
    a = rng.normal(size=(depth, rows) if tape else (rows, depth)).astype("float32")
    b = rng.normal(size=(depth, columns)).astype("float32")
    ours = np.zeros((depth, padded), "float32") if tape else np.zeros((-(-columns // panel), depth, panel), "float32")
    if tape:
        ours[:, :columns] = b
    else:
        for k in range(ours.shape[0]):
            part = b[:, k * panel : (k + 1) * panel]
            ours[k, :, : part.shape[1]] = part
    c, theirs = np.zeros((rows, padded), "float32"), np.zeros((rows, columns), "float32")
    a_row, a_k = (1, rows) if tape else (depth, 1)
    strides = (panel, padded) if tape else (depth * panel, panel)
    arguments = (c.ctypes.data, padded, a.ctypes.data, a_row, a_k, ours.ctypes.data, *strides, rows, depth, padded, 0)
    left = a.T if tape else a
    ours_loop, blas_loop = loops()
    address, n = build_product(np.float32).address, max(1, int(1e7 / (2 * rows * depth * columns)))
    times = least({
        "nbflow": lambda: ours_loop(n, address, *arguments), "blas": lambda: blas_loop(n, left, b, theirs),
    })  # fmt: skip
    np.testing.assert_allclose(c[:, :columns], theirs, rtol=1e-3, atol=1e-3 * np.sqrt(depth))
    rates = {side: 2 * n * rows * depth * columns / seconds / 1e9 for side, seconds in times.items()}
    cells = [f"{rates[side]:.0f}" for side in ("nbflow", "blas")]
    return [name, f"{rows}, {depth}, {columns}", *cells, f"{rates['nbflow'] / rates['blas']:.1f}"]


# Memory: a process for each, since a peak never falls.

LONG_ONE = """
import sys
from pathlib import Path
import numpy as np, nbflow as nf
T, B, N, H, every = map(int, sys.argv[1:])
net = nf.Network("tanh", N, H, 4)
theta = nf.init(net, "orthogonal", rng=0)
def batch(T):
    weights = np.zeros((T, B), "float32")
    weights[-1] = 1
    return nf.Batch(np.ones((T, B, N), "float32"), np.zeros((T, B), "int32"), weights)
asked = {"recompute_every": every} if every else {}
nf.gradient(net, theta, batch(10), **asked)
long = batch(T)
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is now what is in use
before = peak()
nf.gradient(net, theta, long, **asked)
print(peak() - before)
"""


def memory() -> str:
    T, B, _, H = LONG
    rows = []
    for every in (0, EVERY):
        words.say(f"memory, recompute_every={every}")
        command = [sys.executable, "-c", LONG_ONE, *map(str, LONG), str(every)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(["plain" if not every else f"recompute_every={every}", f"{int(done.stdout) / 1024:.0f}"])
    states = T * B * H * 4 / 2**20
    rows.append(["the states alone, T B H numbers", f"{states:.0f}"])
    return words.table([f"gradient at {peers.named(LONG)}", "peak memory beside the batch, MiB"], rows)


TITLES = {
    "phases": "Where an update goes: one thread, parts of the time of an update, and the rate of its products",
    "cores": "Cores, times as fast as one core with the batch cut as it is: shards are shared out, the rest is not",
    "products": "The matrix product beside BLAS: one thread each",
    "memory": "A long sequence",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=TITLES, default=list(TITLES), help="by default all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this file, too")
    options = parser.parse_args(arguments)
    before, begun = words.load(), time.perf_counter()
    tables, stopped = words.measured({TITLES[name]: globals()[name] for name in options.sections})
    facts = [
        f"Machine: {words.machine()}.",
        f"Versions: {words.versions()}.",
        f"Command: `python scripts/bench/bench_parts.py`, {words.today()}, {time.perf_counter() - begun:.0f} s; least "
        f"of {FEW} to {BURSTS} bursts; load average before it {before}, after it {words.load()}.",
    ]
    return words.finish(facts, tables, stopped, options.write, MARKS)


if __name__ == "__main__":
    sys.exit(main())
