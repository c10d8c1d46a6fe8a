"""What computed something: the processor, its cores, and the versions that results depend on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Return what a table of results says of the machine: names, numbers and versions, as JSON takes them."""
    import numba
    import numpy

    import nbflow

    return {
        "processor": processor(), "cores": cores(), "threads": numba.get_num_threads(), "system": platform.platform(),
        "python": platform.python_version(), "nbflow": nbflow.__version__, "numpy": numpy.__version__,
        "numba": numba.__version__,
    }  # fmt: skip


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name."""
    return cpu_fields().get("model name") or platform.processor() or platform.machine()


def cpu_fields() -> dict[str, str]:
    """Return what Linux says of a processor, by its names for it; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
