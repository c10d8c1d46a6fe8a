"""`python -m nbflow` says what a report of a fault needs, of this machine and of any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow as nf
from nbflow import __main__ as main


def told(**environment: str) -> dict[str, str]:
    """Return what it says in a process of its own, name by name."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nbflow"], capture_output=True, text=True, timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: words for name, _, words in (line.partition(" ") for line in done.stdout.splitlines())}


def test_it_says_versions_processor_vectors_threads_cache_and_gpu() -> None:
    said = told(NUMBA_NUM_THREADS="1", NBFLOW_QUIET="1")
    assert set(said) >= {"nbflow", "Python", "numpy", "scipy", "numba", "llvmlite", "system", "processor", "vectors",
                         "threads", "cache", "GPU"}  # fmt: skip
    assert said["nbflow"].split()[0] == nf.__version__
    assert said["threads"].strip().startswith("1 (")
    assert said["NBFLOW_QUIET"].strip() == "1"
    assert said["GPU"].strip()


def test_the_cache_is_counted_where_it_is(tmp_path: Path) -> None:
    said = told(NUMBA_CACHE_DIR=str(tmp_path))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert said["cache"].strip() == f"{folder}: 0 kernels, 0.0 MB"
    (folder / "one.nbc").write_bytes(bytes(1_500_000))
    assert told(NUMBA_CACHE_DIR=str(tmp_path))["cache"].strip() == f"{folder}: 1 kernels, 1.5 MB"


def test_another_processor_that_is_asked_for_is_named() -> None:
    assert told(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="")["vectors"].strip().startswith("those of haswell")


@pytest.mark.parametrize(("features", "said"), [
    ({"sse2": True, "avx": True, "avx512f": True}, "512 bits"), ({"sse2": True, "avx": True}, "256 bits"),
    ({"sse2": True, "avx": False}, "128 bits"), ({"neon": True}, "128 bits"), ({}, "of unknown length"),
])  # fmt: skip
def test_vectors_are_the_longest_that_a_processor_has(features, said, monkeypatch) -> None:
    import llvmlite.binding
    from numba.core import config

    monkeypatch.setattr(config, "CPU_NAME", None)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    assert main.vectors().startswith(said)


def test_a_driver_that_fails_is_said_and_no_error(monkeypatch) -> None:
    from numba import cuda

    def broken():
        raise RuntimeError("the driver is older than the toolkit")

    monkeypatch.setattr(cuda, "is_available", broken)
    assert main.gpu() == "none: RuntimeError: the driver is older than the toolkit"


def test_the_citation_has_the_version_of_the_package() -> None:
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {nf.__version__}\n" in text
