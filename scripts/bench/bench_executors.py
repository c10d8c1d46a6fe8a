"""What a sweep costs beside its training: tiny runs by the spawned pool, by Dask, and by a thread of this process.

Usage: python scripts/bench/bench_executors.py --runs 10000 --workers 2 --ways pool dask

Each run is one update of a network of four units, so almost all of the time is what a run costs anyhow: its group is
sent out, its files are made and deleted, and its line goes into the store. Dask needs `pip install -e '.[dask]'`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import commands

import nbflow as nf

RECIPE = nf.Recipe(lengths=10, batch_size=1, max_updates=1, evaluate_every=0)
TRAININGS = 200  # of which the time of one is the median
TINY = nf.Experiment("temporal_order", RECIPE, n_hidden=4)
# Of nbflow's own pool the sweep decides; others are given.
Way = Callable[[int], contextlib.AbstractContextManager[Executor | None]]


@contextlib.contextmanager
def pool(workers: int) -> Iterator[None]:
    """Give nothing: a sweep has a pool of its own."""
    yield None


@contextlib.contextmanager
def thread(workers: int) -> Iterator[Executor]:
    """Give one thread of this process."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextlib.contextmanager
def dask(workers: int) -> Iterator[Executor]:
    """Give a cluster of processes on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor() as executor,
    ):
        client.wait_for_workers(workers)
        yield executor


WAYS: dict[str, Way] = {"thread": thread, "pool": pool, "dask": dask}


def measure(way: str, runs: int, workers: int, group_size: int, folder: Path) -> None:
    """Sweep in one way, after a first sweep in which workers start and compile, and say how long it took."""
    with WAYS[way](workers) as executor:
        own = {"executor": executor} if executor else {"workers": workers}
        first = time.perf_counter()
        nf.sweep(TINY, range(10**6, 10**6 + 8 * workers), folder / f"{way}-first.jsonl", progress=False, **own)
        start = time.perf_counter()
        swept = nf.sweep(TINY, runs, folder / f"{way}.jsonl", progress=False, group_size=group_size, **own)
        seconds = time.perf_counter() - start
    assert (len(swept.runs), swept.missing, swept.failed) == (runs, 0, [])
    print(
        f"{way}: {seconds:.1f} s, {1000 * seconds / runs:.2f} ms a run (a first small sweep: {start - first:.1f} s)",
        flush=True,
    )


def bare(group_size: int, folder: Path) -> None:
    """Say how long the training of a group takes by itself."""
    theta = nf.init(TINY.net, TINY.init, rng=0, replicas=group_size)
    times = []
    for _ in range(TRAININGS):
        start = time.perf_counter()
        nf.train(TINY.net, theta, TINY.task, RECIPE, checkpoint=folder / "bare.npz")
        times.append(time.perf_counter() - start)
        (folder / "bare.npz").unlink()
    print(
        f"training alone, with its checkpoint: {1000 * sorted(times)[TRAININGS // 2] / group_size:.2f} ms a run",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = commands.parser_for(__doc__)
    parser.add_argument("--runs", type=commands.count, default=10_000)
    parser.add_argument("--workers", type=commands.count, default=2, help="processes of the pool, and of Dask")
    parser.add_argument("--group-size", type=commands.count, default=4, help="as nf.sweep takes it")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args(arguments)

    def measure_all(folder: Path) -> None:
        bare(options.group_size, folder)
        for way in options.ways:
            measure(way, options.runs, options.workers, options.group_size, folder)

    try:
        return commands.measured_in_a_folder(parser, options.out, measure_all)
    except ImportError as error:
        parser.error(f"--ways: {error}. pip install -e '.[dask]', or leave dask out.")


if __name__ == "__main__":
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # of its workers too
    sys.exit(main())
