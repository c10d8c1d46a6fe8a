"""scripts/bench/gpu_population.py: what it measures, writes and says, on populations of a few tiny networks."""

from __future__ import annotations

import json

import pytest
from scripted import assert_help, assert_refused, fixture_of
from tolerance import near

TINY = ["--length", "10", "--hidden", "4", "--batch-size", "2", "--seconds", "0.01", "--replicas", "1", "3",
        "--sizes", "10", "2", "3"]  # fmt: skip

script = fixture_of("gpu_population")
sides = fixture_of("population_sides")


@pytest.fixture
def no_gpu(monkeypatch):
    from nbflow.cuda import device

    def require():
        raise RuntimeError("backend is 'cuda', and numba finds no CUDA GPU here; install nbflow[gpu]")

    monkeypatch.setattr(device, "require", require)


def test_help_teaches_every_option():
    assert_help("bench/gpu_population.py", "Usage:", "--replicas", "Whether to measure PyTorch")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_says_so_and_measures_the_cpu(script, tmp_path, capsys):
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "No line for a GPU: backend is 'cuda'" in out
    assert "nbflow[gpu]" in out
    assert "3 networks" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu_population.json", "gpu_population.png"]
    found = json.loads((tmp_path / "gpu_population.json").read_text())
    (line,) = found["lines"]
    assert line["title"] == "nbflow, CPU"
    assert line["replicas"] == [1, 3]
    assert all(rate > 0 for rate in line["rates"])
    (cell,) = found["sizes"]
    assert (cell["title"], cell["size"]) == ("nbflow, CPU", [10, 2, 3])
    assert f"{cell['milliseconds']:.3g} ms an update" in out
    assert "One network, milliseconds an update" in out
    assert (tmp_path / "gpu_population.png").read_bytes().startswith(b"\x89PNG")


def test_a_rate_counts_every_network_and_the_measured_half_alone(script):
    calls = []

    def side(replicas, updates):
        calls.append(updates)
        return 0.5 * updates

    assert script.rate(side, 10, 4.0) == near(20)
    assert calls[0] == 1
    assert 0.5 * calls[-1] >= 0.3 * 4.0


def test_a_side_that_runs_out_of_memory_keeps_what_it_has(script, monkeypatch, tmp_path, capsys):
    def side(replicas, updates):
        if replicas > 1:
            raise MemoryError("the card has no room for 9 GB")
        return 1.0

    entrant = script.Entrant("a card", lambda options: side, alone=False)
    monkeypatch.setattr(script, "entrants", lambda options, console: iter([entrant]))
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert "a card went no further: the card has no room for 9 GB" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu_population.json").read_text())["lines"][0]["replicas"] == [1]


@pytest.mark.parametrize("fused", [True, False])
def test_pytorchs_side_trains(script, sides, torch, fused):
    options = script.Options(length=5, hidden=4, batch_size=3)
    assert sides.torch_side(options, "cpu", fused=fused, tf32=False)(1 if fused else 3, 2) > 0


def test_a_size_without_room_leaves_the_others_their_place(script, monkeypatch, tmp_path, capsys):
    def make(options):
        def side(replicas, updates):
            if options.hidden > 3:
                raise MemoryError("the card has no room for 9 GB")
            return 0.25 * updates

        return side

    several = [script.Entrant("a card", make), script.Entrant("many at once", make, most=1, alone=False)]
    monkeypatch.setattr(script, "entrants", lambda options, console: iter(several))
    sizes = ["--hidden", "3", "--sizes", "10", "2", "3", "10", "2", "9"]
    assert script.main([*TINY, *sizes, "--out", str(tmp_path)]) == 0
    assert "a card, T=10, B=2, H=9: the card has no room" in capsys.readouterr().out
    found = json.loads((tmp_path / "gpu_population.json").read_text())
    assert found["sizes"] == [{"title": "a card", "size": [10, 2, 3], "milliseconds": 250.0}]
    assert [line["replicas"] for line in found["lines"]] == [[1, 3], [1]]


def test_pytorch_out_of_memory_is_a_memory_error(script, sides, torch, monkeypatch):
    def full(*sizes, **choices):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(torch, "randint", full)
    side = sides.torch_side(script.Options(length=5, hidden=4, batch_size=3), "cpu", fused=True, tf32=False)
    with pytest.raises(MemoryError, match="9 GiB"):
        side(1, 1)


def test_a_population_of_none_is_refused(script, tmp_path, capsys):
    words = "replicas is 0; expected at least 1"
    assert_refused(script, ["--replicas", "0", "--out", str(tmp_path / "new")], words, capsys)
