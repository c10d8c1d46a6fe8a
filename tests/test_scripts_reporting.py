"""scripts/reporting.py: what the scripts share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import fixture_of, load

reporting = fixture_of("reporting")


def test_files_appear_whole_or_not_at_all(reporting: Any, tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.json"
    reporting.write(target, "first")
    with pytest.raises(UnicodeEncodeError):
        reporting.write(target, "half\ud800")
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]


def test_what_json_cannot_say_is_said_otherwise(reporting: Any) -> None:
    assert reporting.plain({1: (Path("a"), float("nan"), np.float64("inf"), 2)}) == {"1": ["a", None, None, 2]}


def test_progress_is_bars_in_a_terminal_and_seldom_lines_elsewhere(
    reporting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    for terminal, quiet, words in ((True, 10.0, "raking"), (False, 0.0, "raking: 3 of 4"), (False, 10.0, "")):
        monkeypatch.setattr(reporting, "QUIET_SECONDS", quiet)
        console = Console(force_terminal=terminal, width=100, file=io.StringIO())
        with reporting.progress(console) as show:
            show("raking", 3, 4)
        shown = console.file.getvalue()
        assert words in shown
        assert bool(words) == bool(shown)


@pytest.mark.parametrize("name", ["temporal_order", "single_steps", "flow", "nonfinite", "clip_bias", "gpu_population"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load(monkeypatch, name)
    monkeypatch.setattr("nbflow.training.train", lambda *_, **__: pytest.fail("it trains"))
    (tmp_path / "file").write_text("mine")
    assert script.main(["--out", str(tmp_path / "file" / "folder")]) == 2
    assert "cannot hold one. Name another." in capsys.readouterr().out
    assert [place.name for place in tmp_path.iterdir()] == ["file"]
