"""Run the tests of numbers as other processors would compute: by LLVM's target, OpenBLAS's kernels, and threads.

A target is taken as it is: numba adds the features of this machine to a processor that is named alone, so their list
is given, and empty. What this machine cannot run is left out, and said. Exits with 1 if a test failed anywhere.

Usage: python tests/matrix.py [--one-in 40] [--workers 2] [more arguments for pytest]
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time

from llvmlite.binding import get_host_cpu_features

THREADS = "2", "1"  # two first: what they compile, one finds
# The name of a target: what it needs of this machine, and its environment.
TARGETS = {
    "native": ("", {}),
    "skylake-avx512": ("avx512vl", {"NUMBA_CPU_NAME": "skylake-avx512", "OPENBLAS_CORETYPE": "SkylakeX"}),
    "haswell": ("avx2", {"NUMBA_CPU_NAME": "haswell", "OPENBLAS_CORETYPE": "Haswell"}),
    "generic": ("", {"NUMBA_CPU_NAME": "generic", "OPENBLAS_CORETYPE": "Prescott"}),
}
NO_TESTS = 5  # what pytest exits with where it found none


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one-in", type=int, default=40, help="the part of the tests that is run, by their names")
    parser.add_argument("--workers", default="2", help="processes of tests")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    options, more = parser.parse_known_args()
    has, failed = get_host_cpu_features(), []
    for name in options.targets:
        needs, chosen = TARGETS[name]
        if needs and not has.get(needs):
            print(f"{name}: left out, for this machine has no {needs}", flush=True)
            continue
        features = {"NUMBA_CPU_FEATURES": ""} if chosen else {}
        for threads in THREADS:
            command = [sys.executable, "-m", "pytest", "tests", "-q", "-m", "numeric and not gpu",
                       f"--one-in={options.one_in}", "-n", options.workers, *more]  # fmt: skip
            told = chosen | features | {"NUMBA_NUM_THREADS": threads}
            print(f"{name}, threads: {threads}", flush=True)
            start = time.perf_counter()
            code = subprocess.run(command, env=os.environ | told).returncode
            print(f"{name}, threads: {threads}: {time.perf_counter() - start:.0f} s\n", flush=True)
            if code not in (0, NO_TESTS):
                failed.append(" ".join([*(f"{key}={value}" for key, value in told.items()), shlex.join(command)]))
    for command in failed:
        print(f"failed: {command}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
