"""Claims about the options of all scripts: what makes no sense is refused by its name, and nothing is overwritten."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import SCRIPTS, assert_refused, load, write_tunes

from nbflow.experiments import console

NAMES = ("brink", "clip_bias", "cliff", "descent", "flow", "generalization", "language", "language_sizes",
         "lengths", "music", "nonfinite", "overflow", "reach", "single_steps", "success_rate", "table_1",
         "temporal_order", "ways_to_clip")  # fmt: skip
# Of these a name in the folder of scripts has the options.
HOMES = {"cliff": "cliff_surface", "music": "music_training"}


def numbers(name: str) -> Iterator[tuple[str, str]]:
    """Yield options of a script that are numbers, as they are given, and a value that none of them means."""
    source = (SCRIPTS / f"{HOMES.get(name, name)}.py").read_text()
    body = source.split("class Options:")[1].split("\n\n    @property")[0].split("\n\n\n")[0]
    for line in body.splitlines():
        field, _, kind = line.strip().partition(": ")
        if line.startswith("    ") and kind.startswith(("int", "float")) and field.isidentifier():
            yield field, "-1"
            if kind.startswith("float"):
                yield field, "nan"


EVERY = [(name, field, value) for name in NAMES for field, value in numbers(name)
         if not (name == "cliff" and field in ("x_0", "target") and value == "-1")]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "value"), EVERY)
def test_a_number_that_makes_no_sense_is_refused_by_the_name_of_its_option(
    name: str,
    field: str,
    value: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = load(monkeypatch, name)
    text = tmp_path / "text.txt"
    text.write_text("a text of a few characters " * 40)
    tunes = str(write_tunes(tmp_path / "tunes.json"))
    given = {"language": ["--text", str(text)], "language_sizes": ["--texts", str(text)], "music": ["--data", tunes],
             "table_1": ["--data", tunes]}  # fmt: skip
    out = tmp_path / "new" / ("cliff.png" if name == "cliff" else "")
    arguments = [*given.get(name, []), f"--{field.replace('_', '-')}", value, "--out", str(out)]
    assert_refused(script, arguments, f"error: {field} is {value}", capsys)


def test_there_are_many_such_options() -> None:
    assert len(EVERY) > 100
    assert {name for name, *_ in EVERY} == set(NAMES)


@dataclasses.dataclass
class Setting:
    seeds: int = 3
    lengths: tuple[int, ...] = (10, 20)
    out: Path = Path("results")
    name: str = "thing"


def write(folder: Path, **changes: Any) -> Path:
    options = Setting(out=folder, **changes)
    found = console.document(options, value=changes)
    return console.keep(console.console_here(), folder / options.name, found, {})[0]


def test_a_file_of_another_setting_is_never_overwritten_and_what_differs_stands_in_the_name(tmp_path: Path) -> None:
    first = write(tmp_path)
    before = first.read_bytes()
    second = write(tmp_path, lengths=(10, 50))
    third = write(tmp_path, seeds=5, lengths=(10, 50))
    assert [path.name for path in (first, second, third)] == [
        "thing.json", "thing.lengths_10_50.json", "thing.seeds_5-lengths_10_50.json"]  # fmt: skip
    assert first.read_bytes() == before
    assert write(tmp_path, lengths=(10, 50)) == second, "the same setting is the same file"
    assert write(tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_of_no_script_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_text("[1, 2]")
    assert write(tmp_path).name != "thing.json"
    assert json.loads((tmp_path / "thing.json").read_text()) == [1, 2]


def test_a_long_setting_has_a_short_name_of_its_own(tmp_path: Path) -> None:
    write(tmp_path)
    names = {write(tmp_path, lengths=tuple(range(first, first + 200))).name for first in (10, 11)}
    assert len(names) == 2
    assert max(map(len, names)) < 100


def test_a_data_set_is_known_by_what_is_in_it_and_not_by_the_name_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    published = load(monkeypatch, "music_published").published
    muse = {"train": [9] * 524, "valid": [9] * 135, "test": [9] * 124}
    assert published(muse, "museum").pascanu == (7.11, 7.00, 6.97)
    assert published({"train": [9], "valid": [9], "test": [9]}, "museum") == type(published(muse, ""))("museum")
