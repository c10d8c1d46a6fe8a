"""Profiles of hypothesis, optional references, and which tests run with or without compiler and GPU."""

from __future__ import annotations

import os
import signal
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")

# A shell that starts the tests in the background has them ignore Ctrl-C, and tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a property may compile a kernel, so no example has a deadline.
SLOW_START = [HealthCheck.too_slow]
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50, suppress_health_check=SLOW_START)
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=SLOW_START)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """Give PyTorch as a reference; tests that ask for it skip where it is not installed."""
    return pytest.importorskip("torch")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep only `sim` tests where nothing is compiled; skip `gpu` tests where there is no GPU, real or simulated."""
    if INTERPRETED:
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("sim")])
        items[:] = [item for item in items if item.get_closest_marker("sim")]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        from numba import cuda

        if not cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
