"""`python -m nbflow`: what a report of a fault should say of the machine: versions, processor, threads, cache, GPU."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import nbflow

# What results and speed depend on, and what may be installed beside it.
NEEDED = ("numpy", "scipy", "numba", "llvmlite")
OPTIONAL = ("matplotlib", "rich", "tyro", "distributed", "numba-cuda", "torch")
# Settings that change what is computed, how fast, or where it is kept.
SETTINGS = ("NUMBA_", "NBFLOW_", "OMP_NUM_THREADS", "OPENBLAS_", "MKL_NUM_THREADS", "CUDA_")
# Of the longest vectors of a processor's instructions, in bits: the first feature that it has.
VECTORS = {"avx512f": 512, "avx": 256, "sse2": 128, "neon": 128}


def facts() -> Iterator[tuple[str, str]]:
    """Yield what there is to say, name by name."""
    from nbflow.experiments.machine import cores, processor

    yield "nbflow", f"{nbflow.__version__} in {Path(nbflow.__file__).parent}"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}) in {sys.prefix}"
    for name in NEEDED + OPTIONAL:
        found = version(name)
        if found or name in NEEDED:
            yield name, found or "missing"
    yield "system", platform.platform()
    yield "processor", f"{processor()}, {cores()} cores for this process"
    yield "vectors", vectors()
    yield "threads", threads()
    yield "cache", cache()
    yield "GPU", gpu()
    for name in sorted(os.environ):
        if name.startswith(SETTINGS):
            yield name, os.environ[name]


def version(name: str) -> str:
    """Return the version of an installed package, empty without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def vectors() -> str:
    """Return the target of compilation, and how long its vectors are."""
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
    from numba.core import config

    if config.CPU_NAME is not None:
        return f"those of {config.CPU_NAME}, which NUMBA_CPU_NAME names"
    features, name = get_host_cpu_features(), get_host_cpu_name()
    bits = next((bits for feature, bits in VECTORS.items() if features.get(feature)), None)
    return f"{bits} bits ({name})" if bits else f"of unknown length ({name})"


def threads() -> str:
    """Return how many threads there are, and what runs them; to ask starts them."""
    import numba

    count = numba.get_num_threads()
    return f"{count} ({numba.threading_layer()})"


def cache() -> str:
    """Return where compiled kernels are kept, and how much is there."""
    from nbflow._disk_cache import _place

    place = _place()
    if place is None:
        return "none: no folder can be written; set NUMBA_CACHE_DIR to one that can"
    folder = Path(place.locator.get_cache_path())
    sizes = [path.stat().st_size for path in folder.glob("*.nbc")]
    return f"{folder}: {len(sizes)} kernels, {sum(sizes) / 1e6:.1f} MB"


def gpu() -> str:
    """Return the GPU that `backend="cuda"` would use, or why there is none."""
    try:
        from numba import cuda

        if not cuda.is_available():
            return "none that numba can use"
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else device.name
        return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"
    except Exception as error:  # whatever a driver may raise: it is what the report should say
        return f"none: {type(error).__name__}: {error}"


def main() -> int:
    """Print it."""
    for name, words in facts():
        print(f"{name:<12} {words}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
