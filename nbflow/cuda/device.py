"""The card: the one module that knows how numba's `cuda` is imported, how grids are compiled and memory is had.

Without a GPU it can be imported, and nothing else of this package: `require` says why. In numba's simulator `cuda` asks
the grid that is running; there every thread is a thread of Python, so blocks are kept small.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import config

try:
    from numba import cuda as _module
except ImportError:  # a numba that has no CUDA of its own any more, and no numba-cuda beside it
    _module = None

SIMULATED = bool(config.ENABLE_CUDASIM)

# Threads of a block. 256 threads may have all the 255 registers that a thread can have.
MOST_THREADS = 4 if SIMULATED else 256
WARP = 2 if SIMULATED else 32
# What a block may have of shared memory without asking the driver for more, in bytes, less a number for each thread.
SHARED_BYTES = 48 * 1024 - 8 * 256


class _Simulator:
    """`cuda` as a grid sees it in the simulator, whichever module its helpers stand in."""

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context() or _module, name)


cuda: Any = _Simulator() if SIMULATED and _module is not None else _module


def require() -> None:
    """Raise a RuntimeError if there is no GPU."""
    remedy = (
        "Give backend='cpu', or install nbflow[gpu] (nbflow[gpu-cu13] brings a CUDA toolkit along) where there is an "
        "NVIDIA GPU; `python -m numba -s` says what numba finds."
    )
    if _module is None:
        raise RuntimeError(f"backend is 'cuda', and numba-cuda is not installed; expected it and a CUDA GPU. {remedy}")
    if not _module.is_available():
        raise RuntimeError(f"backend is 'cuda', and numba finds no CUDA GPU here; expected one. {remedy}")
    if SIMULATED and not config.DISABLE_JIT:
        raise RuntimeError(
            "backend is 'cuda' in the simulator, and NUMBA_DISABLE_JIT is not set; expected both, since the simulator "
            "runs plain Python. Set NUMBA_DISABLE_JIT=1 as well."
        )


def name_of_card() -> str:
    """Return the GPU's name."""
    if SIMULATED:
        return "the simulator"
    name = _module.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def grid(function: Callable[..., None]) -> Any:
    """Compile a function that `launch` runs; no fastmath, as numba-cuda takes it for leave to approximate."""
    return cuda.jit(function)


def device_part(function: Callable[..., Any]) -> Any:
    """Compile a piece of a grid, together with the grid that calls it."""
    return cuda.jit(device=True)(function)


def launch(kernel: Any, blocks: int | tuple[int, int], threads: int, *arguments: Any, shared: int = 0) -> None:
    """Run a grid on the default stream, with so many bytes of shared memory."""
    configured = _configure if SIMULATED else _configured
    configured(kernel, blocks, threads, shared)(*arguments)


def _configure(kernel: Any, blocks: int | tuple[int, int], threads: int, shared: int) -> Any:
    with warnings.catch_warnings():
        # One small network does not fill a card, which numba would say at every launch.
        warnings.filterwarnings("ignore", message="Grid size")
        return kernel[blocks, threads, 0, shared]


# Configured once: a training run launches the same few grids again and again, in some sizes where lengths vary.
_configured = functools.lru_cache(8192)(_configure)


def launch_over(kernel: Any, count: int, *arguments: Any) -> None:
    """Run a grid of one thread for each of `count` things."""
    launch(kernel, -(-count // MOST_THREADS), MOST_THREADS, *arguments)


def threads_for(count: int) -> int:
    """Return the threads of a block that works on `count` things: whole warps."""
    return min(MOST_THREADS, -(-count // WARP) * WARP)


def allocate(count: int, dtype: Any, purpose: str) -> Any:
    """Return an array on the card, or raise a MemoryError that says how much was wanted."""
    size = count * np.dtype(dtype).itemsize
    try:
        return _module.device_array(count, dtype)
    except Exception as error:
        if not isinstance(error, MemoryError) and "OUT_OF_MEMORY" not in str(error).upper().replace(" ", "_"):
            raise
        raise MemoryError(
            f"the card has no room for {_said(size)}, {purpose}; expected less. Take fewer replicas, "
            f"or a smaller or shorter batch."
        ) from None


def _said(size: int) -> str:
    power = min(4, int(math.log(max(size, 1), 1000)))
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


@functools.cache
def real_of(dtype: Any) -> Any:
    """Return numba's type for a dtype of the network, which shared and local arrays are declared with."""
    from numba.np.numpy_support import from_dtype

    return from_dtype(np.dtype(dtype))
