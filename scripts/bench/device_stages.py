"""The stages of bench_device.py, each a process: what it finds it prints at once, as Markdown.

Usage: python scripts/bench/device_stages.py device|bits|registers|population
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nbflow as nf
from nbflow.cuda import device as card

HERE = Path(__file__).resolve().parent
# T, B, H of what is computed for its bits and its registers: the sums of a block are in several pieces.
T, B, H = (10, 2, 3) if card.SIMULATED else (100, 20, 100)
ROUNDS = 1 if card.SIMULATED else 3
CELLS = ("tanh",) if card.SIMULATED else nf.names("cells")


def say(words: str) -> None:
    print(words, flush=True)


def of_device() -> None:
    """Say what the device is."""
    card.require()
    say(f"- Device: {card.name_of_card()}.")
    if card.SIMULATED:
        return
    from numba import cuda

    here = cuda.get_current_device()
    free, whole = cuda.current_context().get_memory_info()
    capability = ".".join(map(str, here.compute_capability))
    say(f"- Compute capability {capability}, {here.MULTIPROCESSOR_COUNT} multiprocessors.")
    say(f"- Memory: {whole / 2**30:.0f} GiB, of which {free / 2**30:.0f} are free.")
    say(f"- Driver {'.'.join(map(str, cuda.cudadrv.driver.get_version()))} (CUDA).")


def numbers() -> Iterator[tuple[str, bytes]]:
    """Yield what is computed on the card, and its bits."""
    task = nf.load_task("temporal_order")
    batch = task.sample(seed=0, index=0, batch_size=B, length=T)
    for cell in CELLS:
        net = nf.Network(cell, task.n_in, H, task.n_out, task.loss)
        theta = nf.init(net, "orthogonal", rng=0)
        found = nf.gradient(net, theta, batch, backend="cuda")
        yield f"gradient, {cell}", found.d_theta.tobytes()
        yield f"clip, {cell}", nf.clip(net, found.d_theta, nf.Clip("norm", 1e-3), backend="cuda").d_theta.tobytes()
    net = nf.Network("tanh", task.n_in, H, task.n_out, task.loss)
    flow = nf.gradient(net, nf.init(net, "orthogonal", rng=0), batch, flow=nf.Flow("squared", 1.0), backend="cuda")
    yield "gradient with Omega", flow.d_theta.tobytes()
    exact = nf.Flow("squared", 1.0, "exact")
    flow = nf.gradient(net, nf.init(net, "orthogonal", rng=0), batch, flow=exact, backend="cuda")
    yield "gradient with exact Omega", flow.d_theta.tobytes()
    recipe = nf.Recipe("adam", batch_size=B, lengths=T, clip=nf.Clip("norm", 0.1), max_updates=2 * ROUNDS,
                       record_every=2, evaluate_every=0)  # fmt: skip
    run = nf.train(net, nf.init(net, "orthogonal", rng=0, replicas=3), task, recipe, backend="cuda")
    yield "training, 3 networks", run.theta.tobytes()


def hashes() -> None:
    """Print the hashes of all numbers, again and again."""
    for _ in range(ROUNDS):
        for name, found in numbers():
            say(f"{name}\t{hashlib.sha256(found).hexdigest()[:16]}")


def bits() -> None:
    """Say of each number whether it has the same bits in all rounds of two processes."""
    command = [sys.executable, __file__, "hashes"]
    said = "".join(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout for _ in range(2))
    seen: dict[str, list[str]] = {}
    for name, found in (line.split("\t") for line in said.splitlines() if "\t" in line):
        seen.setdefault(name, []).append(found)
    say("| what | computed | different results |\n| --- | --- | --- |")
    for name, every in seen.items():
        say(f"| {name} | {len(every)} times | {len(set(every))} |")
    if not seen or any(len(set(every)) > 1 for every in seen.values()):
        sys.exit("Bits differ.")


def registers() -> None:
    """Say what each grid that these numbers need takes of a thread."""
    made: list[Any] = []
    kept = card.cuda.jit

    def jit(*arguments: Any, **how: Any) -> Any:
        found = kept(*arguments, **how)
        if not how.get("device"):
            made.append(found)
        return found

    card.cuda.jit = jit  # which `card.grid` calls for each
    for _ in numbers():
        pass
    say("| grid | threads' registers | local memory, bytes | shared memory, bytes |\n| --- | --- | --- | --- |")
    for one in made:
        for signature in getattr(one, "overloads", {}):
            took = [read(signature) for read in (one.get_regs_per_thread, one.get_local_mem_per_thread,
                                                 one.get_shared_mem_per_block)]  # fmt: skip
            say(f"| {one.py_func.__module__.removeprefix('nbflow.cuda.')}.{one.py_func.__name__} | "
                f"{' | '.join(map(str, took))} |")  # fmt: skip


def population() -> None:
    """Measure populations and single networks, by gpu_population.py."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "gpu_population.py"), "--seconds", "0.4", "--replicas", "1", "10", "100",
                   "1000", "--out", folder]  # fmt: skip
        say("```")
        code = subprocess.call(command, stderr=subprocess.STDOUT)
        say("```")
    sys.exit(code)


PARTS = {"device": of_device, "hashes": hashes, "bits": bits, "registers": registers, "population": population}

if __name__ == "__main__":
    np.seterr(all="ignore")
    PARTS[sys.argv[1]]()
