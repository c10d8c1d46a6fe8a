"""scripts/flow.py: what it writes, says and refuses, on tiny networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, assert_stopped, fixture_of, read
from tolerance import differenced, near, printed

import nbflow as nf

TINY = ["--length", "12", "--replicas", "2", "--hidden", "6", "--batch-size", "4", "--updates", "100", "--moments", "0",
        "50", "100", "--comparisons", "0", "100", "--sequences", "5", "--few", "2", "--orbit", "20", "--k", "3",
        "--batches", "1", "--rounds", "10"]  # fmt: skip
PICTURES = ["flow_derivatives.png", "flow_gains.png", "flow_lags.png", "flow_spectra.png"]

script = fixture_of("flow")
measures = fixture_of("flow_measures")


def test_help_teaches_every_option() -> None:
    assert_help("flow.py", "Usage:", "--methods", "--comparisons", "How Omega counts a gain r that is not 1")


def test_a_run_with_every_method_writes_numbers_and_four_pictures(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert script.main([*TINY, "--out", str(out)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        *script.TITLES.values(),
        "gradient left",
        "while training by",
        "Time of a gradient with Omega, exact",
    ):
        assert words in text
    assert sorted(path.name for path in out.iterdir()) == ["flow.json", *PICTURES]
    for name in PICTURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    found = read(out / "flow.json")
    assert list(found["methods"]) == list(script.TITLES)
    assert set(found["costs"]) == {"immediate", "detached", "exact"}
    starts = {name: method["looks"]["0"] for name, method in found["methods"].items()}
    assert all(starts[name] == starts["none"] for name in starts if name != "lstm"), "all begin with the same networks"
    for name, method in found["methods"].items():
        assert method["updates"][-1] == 100
        assert np.shape(method["errors"]) == (len(method["updates"]), 2)
        assert set(method["comparisons"]) == ({"0", "100"} if name in script.COMPARED else set())
        for look in method["looks"].values():
            assert np.shape(look["by_lag"]) == (2, 13)
            assert np.array(look["by_lag"])[:, 0] == near(1)
            assert np.shape(look["exponents"]) == np.shape(look["singular"]) == (2, 3)
            assert np.sum(look["gains"], axis=1) == near(1)
    ends = [method["looks"]["100"]["by_lag"] for method in found["methods"].values()]
    assert all(one != other for k, one in enumerate(ends) for other in ends[:k]), "no two methods end alike"


def test_a_network_that_keeps_all_lengths_has_flat_gradients_and_spectra(measures: Any) -> None:
    net = nf.Network(cell="linear", n_in=6, n_hidden=5, n_out=4)
    theta = nf.init(net, "orthogonal", rng=0, replicas=2)
    task = nf.load_task("temporal_order")
    batch = task.sample(seed=0, index=0, batch_size=4, length=12, replicas=2, dtype="float64")
    orbits = task.sample(seed=0, index=1, batch_size=3, length=20, dtype="float64").inputs
    seen = measures.look(net, theta, batch, orbits, k=9)
    assert seen.by_lag == near(np.ones((2, 13)), "float32", 20, 25)
    assert seen.median_gain == near(1, "float32")
    assert seen.exponents == near(np.zeros((2, 5)), "float32", size=1.0)
    assert seen.singular == near(np.ones((2, 5)), "float32", 20, 25)


def test_the_exact_derivative_is_that_of_omega_and_the_others_are_held_against_it(measures: Any) -> None:
    """Along a direction where only the exact one can be right: against differences of Omega in w_in."""
    net = nf.Network(cell="tanh", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    theta = nf.init(net, "glorot", rng=0, replicas=2)
    batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=4, length=12, replicas=2, dtype="float64")
    flow = nf.Flow("squared", 1.0, reduction="mean")
    found = measures.compare(net, theta, [batch], flow)

    def value(shifted: Any) -> Any:
        return nf.gradient(net, shifted, batch, flow=flow).omega

    d_omega, step = np.zeros_like(theta), 1e-6
    for p in range(net.size):
        moved = np.zeros(net.size)
        moved[p] = step
        d_omega[:, p] = (value(theta + moved) - value(theta - moved)) / (2 * step)
    plain = nf.gradient(net, theta, batch).d_theta
    immediate = nf.gradient(net, theta, batch, flow=flow).d_theta - plain
    differences = differenced(step, 2, 12, 50, condition=10)
    norms = np.linalg.norm(immediate, axis=1), np.linalg.norm(d_omega, axis=1)
    assert found.cosine["all"]["immediate and exact"] == pytest.approx(
        (immediate * d_omega).sum(axis=1) / (norms[0] * norms[1]), abs=differences
    )
    assert found.ratio["all"]["immediate and exact"] == pytest.approx(norms[0] / norms[1], rel=differences)
    # The immediate derivative has w_rec alone, so both parts differ by what the exact one has elsewhere.
    quotients = (
        getattr(found, what)["all"]["immediate and exact"] / getattr(found, what)["w_rec"]["immediate and exact"]
        for what in ("cosine", "ratio")
    )
    one, other = quotients
    assert one == near(other, "float64", 20, 500)
    assert (one < 0.999).all()


def test_an_interval_over_seeds_is_students_and_geometric_where_wanted(measures: Any) -> None:
    mean, low, high = measures.over_seeds([[1.0], [2.0], [3.0]])
    assert (mean[0], high[0] - mean[0], mean[0] - low[0]) == pytest.approx((2, 2.484138, 2.484138), abs=printed(6))
    assert measures.over_seeds([1.0, 100.0], logarithmic=True).mean == near(10)
    assert np.isnan(measures.over_seeds([1.0]).low)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--updates", "150"], "updates is 150; expected a multiple of 100"),
        (["--moments", "50", "10"], "moments is (50, 10); expected rising percents"),
        (["--comparisons", "101"], "comparisons is (101,)"),
        (["--few", "6"], "few is 6; expected at most sequences, 5"),
        (["--flossing-percent", "0"], "flossing_percent is 0"),
        (["--rounds", "0"], "rounds is 0; expected at least 1"),
        (["--penalty", "nope"], "expected one of"),
        (["--length", "5"], "length is 5"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    wrong = [*TINY, "--methods", "exact", *arguments, "--out", str(tmp_path / "new")]
    assert_refused(script, wrong, words, capsys)


def test_ctrl_c_keeps_the_methods_that_were_done(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = script.watch

    def interrupt(options: Any, method: str, show: Any) -> Any:
        if method == "exact":
            raise KeyboardInterrupt
        return watch(options, method, show)

    monkeypatch.setattr(script, "watch", interrupt)
    few = [*TINY, "--methods", "none", "exact"]
    code = script.main([*few, "--out", str(tmp_path / "out")])
    assert_stopped(code, capsys.readouterr().out, "flow.json", "flow_spectra.png")
    found = read(tmp_path / "out" / "flow.json")
    assert list(found["methods"]) == ["none"]
    assert found["costs"] == {}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["flow.json", *PICTURES[1:]]
    assert script.main([*TINY, "--methods", "exact", "--out", str(tmp_path / "new")]) == 130
    assert not (tmp_path / "new").exists()
