"""scripts/music.py and scripts/cliff.py: what they write, say and refuse, on runs of a few updates."""

from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from scripted import BENCH, SCRIPTS, assert_help, assert_refused, assert_stopped, fixture_of, load, read, write_tunes
from tolerance import near, within

import nbflow as nf
from nbflow.data import read_piano_rolls

TINY = ["--hidden", "6", "--batch-size", "2", "--length", "5", "--max-epochs", "3"]
PIECES = {"train": (7, 5, 4), "valid": (6, 3), "test": (3, 8, 4)}

music = fixture_of("music")
cliff = fixture_of("cliff")


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "jsb-short.json", PIECES)


def training(music: Any, tunes: Path, **options: Any) -> Any:
    small = {"hidden": 6, "batch_size": 2, "length": 5, "max_epochs": 3, **options}
    return music.Training(music.Options(tunes, **small), read_piano_rolls(tunes), lambda *what: None, music.Result())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("music.py", ("Usage:", "--data", "--recipe", "Pascanu", "(default: sigmoid)", "Decides first weights")),
        ("cliff.py", ("Usage:", "--threshold", "Pascanu", "The learning rate of both")),
    ],
)
def test_help_teaches_every_option(name: str, words: tuple[str, ...]) -> None:
    assert_help(name, *words)


# ---- music ----


def known_as(monkeypatch: pytest.MonkeyPatch, title: str) -> None:
    """Let the tunes of these tests have as many pieces as a published set."""
    module = load(monkeypatch, "music_published")
    known = {one.title: one for one in module.PUBLISHED.values()}
    monkeypatch.setattr(module, "PUBLISHED", {tuple(map(len, PIECES.values())): known[title]})


@pytest.mark.parametrize("recipe", ["paper", "adam"])
def test_a_run_writes_numbers_parameters_and_picture(
    music: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    known_as(monkeypatch, "JSB chorales")
    out = tmp_path / "out"
    assert music.main(["--data", str(tunes), "--recipe", recipe, *TINY, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("JSB chorales", "other people's: plain RNNs", "8.7 to 9.1", "under 8.8, is NOT reached"):
        assert words in said
    stem = f"music-jsb-short-{recipe}"
    assert sorted(path.name for path in out.iterdir()) == [f"{stem}.json", f"{stem}.npz", f"{stem}.png"]
    assert (out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    found = read(out / f"{stem}.json")
    assert set(found["options"]) == {option.name for option in dataclasses.fields(music.Options)}
    assert found["options"]["data"] == "jsb-short.json"
    assert found["data"]["train"] == {"pieces": 3, "frames": 16}
    assert {len(values) for values in found["history"].values()} == {3}
    assert f"Test loss {found['result']['test']:.3f}" in said
    assert found["result"]["valid"] == min(found["history"]["valid"])
    by_frequency = read_piano_rolls(tunes).task("test").trivial().score
    assert found["result"]["by_frequency"]["test"] == by_frequency
    assert 0 < found["result"]["accuracy"]["test"] < 1
    assert f"Expected accuracy {100 * found['result']['accuracy']['test']:.1f} %" in said
    assert "every note by its frequency alone" in said
    assert f"{by_frequency:.3f}" in said


def test_the_parameters_give_the_reported_test_loss(music: Any, tunes: Path, tmp_path: Path) -> None:
    assert (
        music.main(["--data", str(tunes), *TINY, "--out", str(tmp_path), "--name", "tiny", "--dtype", "float64"]) == 0
    )
    kept = np.load(tmp_path / "tiny.npz")
    fields = {name: kept[name].item() for name in ("cell", "n_in", "n_hidden", "n_out", "loss", "dtype")}
    net = nf.Network(**fields)
    total = sum(nats(net, kept["theta"], piece) for piece in read_piano_rolls(tunes).test)
    assert read(tmp_path / "tiny.json")["result"]["test"] == near(total / sum(PIECES["test"]), "float64", 20, 500)


def nats(net: nf.Network, theta: NDArray[Any], piece: NDArray[np.uint8]) -> float:
    """Return the negative log-likelihood of a piece, each frame predicted from those before it."""
    target = piece.astype(np.float64)
    inputs = np.concatenate([np.zeros((1, 88)), target[:-1]])[:, None]
    y = nf.predict(net, theta, inputs)[:, 0]
    return float((np.logaddexp(0, y) - target * y).sum())


def test_a_matlab_file_is_read_too(
    music: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as(monkeypatch, "Nottingham")
    cells = {}
    for name, lengths in PIECES.items():
        cells[f"{name}data"] = np.empty((1, len(lengths)), object)
        for k, frames in enumerate(lengths):
            cells[f"{name}data"][0, k] = np.eye(frames, 88, 30, dtype=np.uint8)
    scipy.io.savemat(tmp_path / "Nottingham.mat", cells)
    rest = ["--recipe", "adam", *TINY, "--max-epochs", "1", "--out", str(tmp_path)]
    assert music.main(["--data", str(tmp_path / "Nottingham.mat"), *rest]) == 0
    said = capsys.readouterr().out
    for words in ("SGD, clipping, Omega", "3.36", "3.4 to 4.5", "under 4"):
        assert words in said


@pytest.mark.parametrize("name", ["lstm", "gru", "relu"])
def test_other_cells_clips_and_flows_train(music: Any, tunes: Path, tmp_path: Path, name: str) -> None:
    if name not in nf.names("cells"):
        pytest.skip(f"there is no cell {name}")
    wanted = ["--cell", name, "--init", "glorot", "--rule", "value", "--penalty", "log", "--optimizer", "rmsprop"]
    assert music.main(["--data", str(tunes), *TINY, *wanted, "--lr", "0.001", "--out", str(tmp_path)]) == 0


def test_a_folder_of_parts_trains_to_the_numbers_of_the_file(music: Any, tunes: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "folder", {}
    for name, pieces in zip(PIECES, read_piano_rolls(tunes), strict=True):
        (folder / name).mkdir(parents=True)
        np.savez(folder / name / "pieces.npz", *pieces)
    for data in (tunes, folder):
        assert music.main(["--data", str(data), *TINY, "--out", str(tmp_path / "out"), "--name", data.stem]) == 0
        seen[data] = read(tmp_path / "out" / f"{data.stem}.json")
    assert seen[folder]["result"]["test"] == seen[tunes]["result"]["test"]
    assert len(seen[folder]["data"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("content", "found"), [(None, "no such file"), ('{"train": []}', "each once"), ("", "is empty")]
)
def test_a_wrong_file_is_one_clear_error(
    music: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, found: str
) -> None:
    path = tmp_path / "tunes.json"
    if content is not None:
        path.write_text(content)
    for words in (found, str(path)):
        assert_refused(music, ["--data", str(path), "--out", str(tmp_path / "new")], words, capsys)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--length", "0"], "length is 0; expected"),
        (["--max-minutes", "nan"], "max_minutes is nan; expected"),
        (["--hidden", "-1"], "error: hidden is -1; expected"),
        (["--threshold", "-1"], "threshold is -1; expected"),
        (["--alpha", "nan"], "error: alpha is nan; expected"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    music: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(music, ["--data", str(tunes), *TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)


def test_an_unknown_name_is_refused_with_the_names_that_there_are(
    music: Any, tunes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--cell", "tan"], ["--recipe", "old"]):
        with pytest.raises(SystemExit) as caught:
            music.main(["--data", str(tunes), *wrong])
        assert caught.value.code == 2
        assert "invalid choice" in capsys.readouterr().err


def test_a_recipe_sets_defaults_and_an_option_overrides_them(music: Any) -> None:
    paper, adam = music.parse(["--data", "x"]), music.parse(["--recipe", "adam", "--data", "x", "--hidden", "7"])
    assert (paper.cell, paper.hidden, paper.length, paper.threshold, paper.lr, paper.alpha) == (
        "sigmoid", 300, 200, 8.0, 1.0, 0.5,
    )  # fmt: skip
    assert (adam.cell, adam.hidden, adam.optimizer, adam.penalty) == ("tanh", 7, "adam", "none")


def test_alpha_falls_with_the_epoch(music: Any, tunes: Path) -> None:
    found = training(music, tunes)
    assert found.updates_an_epoch == sum(1 for _ in found.passes.shuffled(0)) == 2
    assert [found.recipe.flow.alpha(update) for update in (0, 1, 2, 4)] == [0.5, 0.5, 0.25, 0.5 / 3]


def test_a_rising_validation_loss_halves_lr_and_then_ends_training(
    music: Any, tunes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = training(music, tunes, halve_after=2, patience=4, max_epochs=50)
    losses = iter([5.0, 4.0, 4.5, 3.9995, 4.2, 4.1, 9.9])
    monkeypatch.setattr(found, "valid", lambda theta: next(losses))
    found.go()
    result = found.result
    assert result.history["valid"] == [5.0, 4.0, 4.5, 3.9995, 4.2, 4.1]
    assert result.history["lr"] == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    assert (result.best_epoch, result.best_valid) == (4, 3.9995)
    assert result.ended == "no better validation loss for 4 epochs"


def test_ctrl_c_reports_the_best_epoch_so_far(
    music: Any, tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = music.Training.source

    def interrupted(self: Any, update: int) -> nf.Batch:
        if update == 5:  # in the third epoch
            raise KeyboardInterrupt
        return draw(self, update)  # type: ignore[no-any-return]

    monkeypatch.setattr(music.Training, "source", interrupted)
    code = music.main(["--data", str(tunes), *TINY, "--max-epochs", "9", "--out", str(tmp_path), "--name", "cut"])
    assert_stopped(code, capsys.readouterr().out, str(tmp_path / "cut.npz"))
    found = read(tmp_path / "cut.json")
    assert (found["result"]["epochs"], found["result"]["updates"]) == (2, 5)
    assert found["result"]["ended"] == "stopped by Ctrl-C"


def test_ctrl_c_before_the_first_epoch_writes_nothing(
    music: Any, tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Any, update: int) -> nf.Batch:
        raise KeyboardInterrupt

    monkeypatch.setattr(music.Training, "source", interrupted)
    code = music.main(["--data", str(tunes), *TINY, "--out", str(tmp_path / "new")])
    assert_stopped(code, capsys.readouterr().out, "nothing is written")
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_finite_validation_loss_writes_nothing(
    music: Any, tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(music.Training, "valid", lambda self, theta: math.nan)
    assert music.main(["--data", str(tunes), *TINY, "--out", str(tmp_path / "new")]) == 1
    assert "nothing is written" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_how_training_is_doing_is_said_in_a_line(music: Any) -> None:
    import music_training

    result = music.Result(np.zeros(1), best_epoch=1, best_valid=9.0, seconds=2.0, updates=20)
    result.history = {"epoch": [1], "valid": [9.0], "loss": [10.0], "lr": [0.5]}
    assert music_training.state(result) == "epoch 1  train 10.000  valid 9.000  best 9.000 (1)  lr 0.5  10 updates/s"


# ---- cliff ----


def by_hand(w: float, b: float, steps: int = 50, x_0: float = 0.5, target: float = 0.7) -> tuple[float, float, float]:
    """Return loss and derivatives of the one-unit network, differentiated forwards in time."""
    x, d_w, d_b = x_0, 0.0, 0.0
    for _ in range(steps):
        h = 1 / (1 + math.exp(-x))
        slope = h * (1 - h)
        x, d_w, d_b = w * h + b, h + w * slope * d_w, 1 + w * slope * d_b
    h = 1 / (1 + math.exp(-x))
    outer = 2 * (h - target) * h * (1 - h)
    return (h - target) ** 2, outer * d_w, outer * d_b


def test_the_surface_is_that_of_the_paper(cliff: Any) -> None:
    unit = cliff.Unit(cliff.Options(grid=5))
    found = cliff.surface(unit, (4.0, 6.0), (-3.0, 0.0))
    for j, b in enumerate(found.b):
        for i, w in enumerate(found.w):
            assert found.loss[j, i] == near(by_hand(w, b)[0], "float64", 20, 500)


def test_both_descents_follow_the_gradient(cliff: Any) -> None:
    unit = cliff.Unit(cliff.Options(start=(4.6, -2.2), updates=20))
    tolerance = within("float64", 50, 1, 1000)  # near the cliff states differ a thousand times as much at the end
    for threshold in (math.inf, 0.1):
        path = unit.descend(nf.Clip("norm", threshold, nonfinite="keep"))
        for k in range(20):
            loss, *gradient = by_hand(*path.points[k])
            norm = math.hypot(*gradient)
            step = 0.2 * np.array(gradient) * min(1.0, threshold / norm)
            assert path.losses[k] == pytest.approx(loss, rel=tolerance)
            assert path.norms[k] == pytest.approx(norm, rel=tolerance)
            np.testing.assert_allclose(path.points[k] - path.points[k + 1], step, rtol=tolerance, atol=tolerance)


def test_by_default_plain_descent_is_thrown_away_and_clipped_descent_stays(cliff: Any) -> None:
    unit = cliff.Unit(cliff.Options())
    plain = unit.descend(nf.Clip("norm", math.inf, nonfinite="keep"))
    clipped = unit.descend(nf.Clip("norm", unit.options.threshold))
    assert plain.jump_length > 2
    assert plain.losses[: plain.jump].min() < 0.001
    assert plain.losses[plain.jump + 1 :].min() > 0.05
    assert clipped.jump_length == near(unit.options.lr * unit.options.threshold, condition=100)
    assert np.median(clipped.losses[-20:]) < 0.005
    assert clipped.losses[-20:].max() < plain.losses[-20:].min()
    assert np.abs(clipped.points[-1] - plain.points[plain.jump]).max() < 0.1


def test_cliff_writes_a_picture_and_a_table(cliff: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "cliff.png"
    assert cliff.main(["--grid", "9", "--updates", "5", "--steps", "10", "--out", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    for words in ("plain", "clipped", "cliff.png"):
        assert words in said


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--updates", "0"], "updates is 0; expected"),
        (["--w", "5", "4"], "w is 5 4; expected"),
        (["--lr", "nan"], "lr is nan; expected"),
        (["--threshold", "-1"], "threshold is -1; expected"),
    ],
)
def test_cliff_answers_a_wrong_option_with_one_clear_error(
    cliff: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    small = ["--grid", "3", "--updates", "2", "--steps", "5", "--out", str(tmp_path / "new" / "cliff.png")]
    assert_refused(cliff, [*small, *wrong], found, capsys)


def test_scripts_and_their_pictures_import_each_other_one_way() -> None:
    """Neither of cliff and music, nor of any other script, is imported by what it imports."""
    names = {path.stem: path for path in (*SCRIPTS.glob("*.py"), *BENCH.glob("*.py"))}
    asked = {name: imported(path) & names.keys() for name, path in names.items()}
    assert "cliff_surface" in asked["cliff_pictures"]
    while asked:
        free = [name for name, others in asked.items() if not others & asked.keys()]
        assert free, f"these import each other in a circle: {sorted(asked)}"
        asked = {name: others for name, others in asked.items() if name not in free}


def test_scripts_import_public_modules_of_nbflow_alone() -> None:
    for path in (*SCRIPTS.glob("*.py"), BENCH / "gpu_population.py"):
        private = [name for name in imported(path) if name.startswith("nbflow") and "._" in name]
        assert private == [], path.name


def imported(path: Path) -> set[str]:
    """Return the modules, and of nbflow the names too, that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
