"""Scripts as tests use them: imported from their folder, asked for help, their JSON read by its strict rules."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("matplotlib", "rich", "tyro"):
    pytest.importorskip(needed)

SCRIPTS = Path(__file__).parent.parent / "scripts"
SHORT = {"train": (7, 5, 4, 4, 3), "valid": (6,), "test": (3,)}


def load(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Import a script, which finds its neighbours as long as the test runs."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(name)


def fixture_of(name: str) -> Any:
    """Return a fixture that gives a script."""

    @pytest.fixture
    def script(monkeypatch: pytest.MonkeyPatch) -> Any:
        return load(monkeypatch, name)

    return script


def assert_help(name: str, *words: str) -> None:
    """Assert that --help, in a process of its own, says these words."""
    done = subprocess.run([sys.executable, SCRIPTS / name, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for one in words:
        assert one in done.stdout


def read(path: Path) -> Any:
    """Return what stands in a JSON file, in which NaN and Infinity do not exist."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def write_tunes(path: Path, frames: Mapping[str, Sequence[int]] = SHORT) -> Path:
    """Write a file of short pieces, three notes a frame, of so many frames each; return its path."""
    rng = np.random.default_rng(0)
    parts = {
        name: [[rng.choice(np.arange(40, 80), 3, replace=False).tolist() for _ in range(n)] for n in lengths]
        for name, lengths in frames.items()
    }
    path.write_text(json.dumps(parts))
    return path
