"""Run the tests of numbers as others would compute: by processor, threading layer, number of threads, and libraries.

Each run is one way, and a sample of the tests (`make test` computes as this machine does, with two threads). A
processor is a target of LLVM and kernels of OpenBLAS, taken as it is: numba adds the features of this machine to one
that is named alone, so their list is given, and empty. The floors are the lowest versions that pyproject.toml allows;
they and TBB stand in an environment of their own, which `make test-matrix` makes. What cannot be run here is left out.
Exits with 1 if a test failed anywhere.

Usage: python tests/matrix.py [--one-in 40] [--workers 2] [--runs haswell tbb] [more arguments for pytest]
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import floors

NO_TESTS = 5  # what pytest exits with where it found none


class Way(NamedTuple):
    """How numbers are computed in a run: how many threads, and what else its environment says."""

    threads: int = 2
    environment: Mapping[str, str] = MappingProxyType({})
    needs: str = ""  # a feature of the processor
    at_floors: bool = False  # by the Python that has the lowest versions


def processor(name: str, blas: str, **how: object) -> Way:
    """Return a target."""
    said = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "OPENBLAS_CORETYPE": blas}
    return Way(environment=said, **how)  # type: ignore[arg-type]


WAYS = {
    "one thread": Way(threads=1),
    "skylake-avx512": processor("skylake-avx512", "SkylakeX", needs="avx512vl"),
    "haswell": processor("haswell", "Haswell", needs="avx2", threads=1),
    "generic": processor("generic", "Prescott"),
    "workqueue": Way(environment={"NUMBA_THREADING_LAYER": "workqueue"}),
    "floors": Way(at_floors=True),
    # Its wheel puts the library where no loader looks.
    "tbb": Way(environment={"NUMBA_THREADING_LAYER": "tbb", "LD_LIBRARY_PATH": "{prefix}/lib"}, at_floors=True),
}


def why_not(way: Way, python: Path) -> str:
    """Return why a way cannot be run here, empty if it can."""
    from llvmlite.binding import get_host_cpu_features

    if way.needs and not get_host_cpu_features().get(way.needs):
        return f"this machine has no {way.needs}"
    if way.at_floors and not python.exists():
        return f"there is no {python}, which `make test-matrix` makes"
    if "{prefix}" in str(way.environment) and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "there is no wheel of TBB for this system"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one-in", type=int, default=40, help="the part of the tests that is run, by their names")
    parser.add_argument("--workers", default="2", help="processes of tests")
    parser.add_argument("--runs", nargs="+", default=list(WAYS), choices=WAYS, help="which ways; by default all")
    parser.add_argument("--floors", type=Path, default=Path(".venv-floors"), help="the environment of lowest versions")
    options, more = parser.parse_known_args()
    lowest, failed = options.floors.absolute() / "bin" / "python", []
    for name in options.runs:
        way = WAYS[name]
        if reason := why_not(way, lowest):
            print(f"{name}: left out, for {reason}", flush=True)
            continue
        python = str(lowest) if way.at_floors else sys.executable
        if way.at_floors and subprocess.run([python, floors.__file__, "check"]).returncode:
            failed.append(f"{python} has other versions than the floors. Delete {options.floors}.")
            continue
        command = [python, "-m", "pytest", "tests", "-q", "-m", "numeric and not gpu", f"--one-in={options.one_in}",
                   "-n", options.workers, *more]  # fmt: skip
        told = {key: value.format(prefix=options.floors.absolute()) for key, value in way.environment.items()}
        told["NUMBA_NUM_THREADS"] = str(way.threads)
        print(f"{name}, threads: {way.threads}", flush=True)
        start = time.perf_counter()
        code = subprocess.run(command, env=os.environ | told).returncode
        print(f"{name}, threads: {way.threads}: {time.perf_counter() - start:.0f} s\n", flush=True)
        if code not in (0, NO_TESTS):
            failed.append(" ".join([*(f"{key}={shlex.quote(value)}" for key, value in told.items()),
                                    shlex.join(command)]))  # fmt: skip
    for command in failed:
        print(f"failed: {command}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
