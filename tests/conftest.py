"""Profiles of hypothesis, optional references, and which tests run: with or without compiler and GPU, in a sample."""

from __future__ import annotations

import os
import re
import signal
import sys
import zlib
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NBFLOW_QUIET", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a property may compile a kernel, so no example has a deadline.
SLOW_START = [HealthCheck.too_slow]
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50, suppress_health_check=SLOW_START)
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=SLOW_START)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
if INTERPRETED:
    # The simulator waits for the threads of a block in a loop that never rests, so each of them would wait 5 ms for its
    # turn at every barrier. An exact Omega of 3 LSTM units takes 0.39 s so, and 1.44 s by Python's own interval.
    sys.setswitchinterval(1e-4)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Give PyTorch as a reference; tests that ask for it skip where it is not installed."""
    return pytest.importorskip("torch")


# A file that takes a tolerance, a reference or a question about vectors from here computes numbers.
NUMBERS = {"naive", "targets", "tolerance"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes a sample."""
    parser.addoption("--one-in", type=int, default=1, help="run one in so many tests, chosen by their names")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of files that compute numbers, new ones too; refuse names that change from process to process."""
    if re.search(r" at 0x[0-9a-f]{6}", item.nodeid):
        raise pytest.UsageError(f"{item.nodeid} has an address in its name; expected the same name always. Give ids=.")
    names = vars(getattr(item, "module", None) or object).values()
    if any(getattr(thing, "__module__", getattr(thing, "__name__", "")) in NUMBERS for thing in names):
        item.add_marker("numeric")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep only `sim` tests where nothing is compiled; skip `gpu` tests where there is no GPU, real or simulated."""
    if INTERPRETED:
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("sim")])
        items[:] = [item for item in items if item.get_closest_marker("sim")]
    sample = config.getoption("--one-in")
    if sample > 1:
        chosen = {item for item in items if zlib.crc32(item.nodeid.encode()) % sample == 0}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        from numba import cuda

        if not cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
