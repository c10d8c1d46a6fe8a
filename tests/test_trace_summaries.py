"""Claims about saturation, gains by lag, the spectrum of w_rec and the Jacobians of single steps."""

from __future__ import annotations

import dataclasses
import itertools

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, make_case, make_exploding_case, make_replicas
from scipy import stats
from tolerance import assert_close, differenced, same_bits, within

import nbflow as nf
from nbflow import records
from nbflow.diagnostics import spectrum

# ------------------------------------------------------------------------------------------------------------ intervals


def assert_interval(found, samples, tolerance, confidence=0.95):
    """Assert that an SequenceMean is SciPy's of the samples in the last axis, which has NaN where there is none."""
    for place in np.ndindex(samples.shape[:-1]):
        there = samples[place][~np.isnan(samples[place])]
        assert found.count[place] == there.size
        if there.size == 0:
            assert np.isnan(found.mean[place])
            assert np.isnan(found.low[place])
        elif there.size == 1:
            assert_close(found.mean[place], there[0], tolerance)
            assert np.isnan(found.low[place])
        else:
            wanted = stats.ttest_1samp(there, 0.0).confidence_interval(confidence) if np.ptp(there) else (there[0],) * 2
            assert_close((found.low[place], found.high[place]), wanted, tolerance, f"the interval at {place}")
            assert_close(found.mean[place], there.mean(), tolerance, f"the mean at {place}")


# ----------------------------------------------------------------------------------------------------------- saturation


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_saturation_is_the_references(cell, dtype):
    for (B, H), kind, when in itertools.product(((3, 3), (25, 17)), KINDS, ("last", "ragged")):
        case = make_case(cell, "square", kind, when, 6, B, 2, H, 2, dtype, seed=40, gain=3.0)
        low, high = naive.saturation(case.params, cell, case.plain[0], case.batch.weights, 0.1)
        assert cell == "linear" or 0 < np.nanmean(low + high) < 1
        seen = nf.saturation(case.net, case.theta, case.batch)
        assert seen.gates == case.net.cell_object.gates
        assert_close(seen.low, np.nanmean(low, axis=(0, 1)), within("float64", 20, 500), "low")
        assert_close(seen.high, np.nanmean(high, axis=(0, 1)), within("float64", 20, 500), "high")
        either = low + high
        by_step = [
            np.nanmean(row, axis=(0, 2)) if np.isfinite(row).any() else np.full(len(low[0, 0]), np.nan)
            for row in either
        ]
        assert_close(seen.by_step, by_step, within("float64", 20, 500), "by step")
        heard = naive.last_step(case.batch.weights) > 0
        samples = np.full((B, len(low[0, 0])), np.nan)
        samples[heard] = np.nanmean(either[:, heard], axis=(0, 3))
        assert_interval(seen.part, samples.T, within("float64", 20, 500))


@pytest.mark.parametrize("cell", CELLS)
def test_a_bias_that_shuts_a_gate_is_seen_at_that_gate_alone(cell):
    case = make_case(cell, "square", "tokens", "all", T=4, B=3, N=2, H=5, M=2, seed=41, gain=0.1)
    gates = case.net.cell_object.gates
    for g, gate in enumerate(gates):
        for size in (-9.0, 9.0):
            theta = 0.1 * case.theta
            nf.unpack(case.net, theta).bias[g, 1] = size
            seen = nf.saturation(case.net, theta, case.batch)
            shut = {"relu": (size < 0, False), "linear": (False, False)}.get(cell, (size < 0, size > 0))
            assert (seen.low[g, 1], seen.high[g, 1]) == shut, gate
            if cell not in ("relu", "linear"):
                others = seen.low + seen.high
                others[g, 1] = 0
                assert not others.any(), gate
                assert_close(seen.part.mean, np.where(np.arange(len(gates)) == g, 1 / 5, 0), within("float64", 20, 500))


@pytest.mark.parametrize("cell, slope", [("tanh", 1.0), ("sigmoid", 0.25)])
def test_the_margin_is_a_limit_of_the_slope(cell, slope):
    """4 m (1 - m) of the largest slope, for a sigmoid as for a tanh: a unit just inside counts, one outside not."""
    net = nf.Network(cell, 1, 2, 1, loss="square", dtype="float64")
    inverse = np.arctanh if cell == "tanh" else lambda h: np.log(h / (1 - h))
    for margin in (0.01, 0.1, 0.3):
        theta = np.zeros(net.size)
        edge = 1 - 2 * margin if cell == "tanh" else 1 - margin
        nudge = 1e-6
        nf.unpack(net, theta).bias[:] = inverse(edge) + np.array([-nudge, nudge])
        batch = nf.Batch(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.ones((1, 1)))
        assert np.array_equal(nf.saturation(net, theta, batch, margin=margin).high, [[0, 1]])
        h = nf.trace(net, theta, batch).states[1, 0, 0]
        found = (1 - h**2 if cell == "tanh" else h * (1 - h)) / slope
        assert_close(found, 4 * margin * (1 - margin) * np.ones(2), 4 * nudge)  # (log slope)' is at most 2


@pytest.mark.parametrize("cell", CELLS)
def test_replicas_are_saturated_each_by_itself(cell):
    net, theta, batch, _, cases = make_replicas(cell, R=3, kind="tokens", T=4, B=9, N=3, H=5, gain=3.0)
    seen = nf.saturation(net, theta, batch, margin=0.2)
    for r, case in enumerate(cases):
        alone = nf.saturation(net, case.theta, case.batch, margin=0.2)
        assert all(same_bits(a[r], b) for a, b in zip(seen[1:4], alone[1:4], strict=True))
        assert all(same_bits(a[r], b) for a, b in zip(seen.part, alone.part, strict=True))


def test_a_batch_without_weight_has_no_saturation_and_a_nan_is_seen():
    case = make_case("lstm", "square", "dense", "all", T=3, B=2, H=3)
    silent = nf.saturation(case.net, case.theta, case.batch._replace(weights=0 * case.batch.weights))
    assert np.isnan(silent.low).all()
    assert np.isnan(silent.part.mean).all()
    theta = case.theta.copy()
    nf.unpack(case.net, theta).bias[1, 2] = np.nan
    low = nf.saturation(case.net, theta, case.batch).low
    assert np.isnan(low[1, 2])
    assert np.isfinite(low[0, 0]) or np.isnan(low[0, 0])


@pytest.mark.parametrize("margin", [-0.1, 0.5, np.nan, "0.1", [0.1, 0.2]])
def test_a_margin_that_makes_no_sense_is_refused(margin):
    case = make_case("tanh")
    with pytest.raises((ValueError, TypeError), match="margin"):
        nf.saturation(case.net, case.theta, case.batch, margin=margin)


def test_a_cell_of_ones_own_has_to_say_what_its_ranges_are():
    tanh, lstm = (nf.Network(cell, 2, 3, 2, loss="square", dtype="float64") for cell in ("tanh", "lstm"))
    for net, change, said in (
        (tanh, {"ranges": ()}, "cell has 0 ranges; expected one for each of its gates a"),
        (lstm, {"ranges": ((0.0, 1.0),)}, "Cell.ranges has 1 ranges; expected one for each of its gates i, f, g, o"),
        (lstm, {"gates": ("i", "forget", "g", "o")}, "Let step save forget"),
    ):
        fields = {name: getattr(net.cell_object, name) for name in nf.Cell.__dataclass_fields__} | change
        case = make_case(net.cell, H=3)

        def seen(fields=fields, case=case):
            net = nf.Network(nf.Cell(**fields), 2, 3, 2, loss="square", dtype="float64")
            return nf.saturation(net, case.theta, case.batch)

        with pytest.raises(ValueError, match=said):
            seen()


# ---------------------------------------------------------------------------------------------------------------- lags


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_and_gains_by_lag_are_the_references(cell, dtype):
    for kind, when in itertools.product(KINDS, ("last", "all", "ragged")):
        case = make_case(cell, "square", kind, when, 6, 9, 2, 5, 2, dtype, seed=42)
        norms, gains = naive.by_lag(case.flow(), case.batch.weights)
        seen = nf.gains_by_lag(case.net, case.theta, case.batch, confidence=0.9)
        tolerance = within(dtype, 6, 100 * case.terms)
        assert_close(seen.norms, norms, tolerance, "norms")
        assert_close(seen.gains, gains, tolerance, "gains")
        assert np.array_equal(seen.zeros, (norms == 0).sum(axis=1))
        with np.errstate(divide="ignore"):
            for found, wanted in ((seen.delta_norm, norms), (seen.gain, gains)):
                logs = np.log(np.where(wanted == 0, np.nan, wanted))
                logged = nf.SequenceMean(*(np.log(part) for part in found[:3]), found.count)
                assert_interval(logged, logs, 100 * tolerance, confidence=0.9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scaled_orthogonal_linear_network_has_its_scale_at_every_lag(dtype):
    """Delta at lag k is scale^k of what it was, for sequences of any length, and the interval has no width."""
    case = make_case("linear", "square", "dense", "all", T=9, B=9, N=2, H=7, M=2, dtype=dtype, seed=43)
    q = np.linalg.qr(np.random.default_rng(43).normal(size=(7, 7)))[0]
    nf.unpack(case.net, case.theta).w_rec[:] = 0.5 * q.reshape(7, 1, 7)
    weights = np.zeros_like(case.batch.weights)
    weights[np.arange(9), np.arange(9)] = 1  # lengths 1 to 9
    seen = nf.gains_by_lag(case.net, case.theta, case.batch._replace(weights=weights))
    assert np.array_equal(seen.gain.count, 9 - np.arange(9))
    assert np.array_equal(seen.delta_norm.count, [9, *range(9, 0, -1)])
    assert_close(seen.gain.mean, np.full(9, 0.5), within(dtype, 9, 70))
    assert np.nanmax(seen.gain.high - seen.gain.low) < within(dtype, 9, 700)
    for b in range(9):
        ratios = seen.norms[: b + 2, b] / seen.norms[0, b]
        assert_close(ratios, 0.5 ** np.arange(b + 2), within(dtype, 9, 70))
        assert np.isnan(seen.norms[b + 2 :, b]).all()


def test_a_delta_of_0_is_counted_and_in_no_mean():
    """A relu that is off at step 2 lets nothing through: delta is 0 from there back."""
    net = nf.Network("relu", 1, 1, 1, loss="square", dtype="float64")
    theta = np.zeros(net.size)
    p = nf.unpack(net, theta)
    p.w_in[:], p.w_rec[:], p.w_out[:] = 1, 0.5, 1
    x = np.ones((4, 3, 1))
    x[1, 0] = -9
    weights = np.zeros((4, 3))
    weights[3] = 1
    seen = nf.gains_by_lag(net, theta, nf.Batch(x, np.full((4, 3, 1), 99.0), weights))
    assert np.array_equal(seen.zeros, [0, 0, 0, 1, 1])
    assert np.array_equal(seen.delta_norm.count, [3, 3, 3, 2, 2])
    assert_close(seen.gain.mean, np.full(4, 0.5), within("float64", 1, 100))


def test_states_that_explode_after_the_end_leave_the_lags_alone():
    case = make_exploding_case("linear", "dense", "float64", "early")
    seen = nf.gains_by_lag(case.net, case.theta, case.batch)
    assert np.isfinite(seen.norms[:2]).all()
    assert np.isnan(seen.norms[2:]).all()
    assert np.isnan(seen.delta_norm.mean[2:]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_replicas_have_lags_of_their_own(cell):
    net, theta, batch, _, cases = make_replicas(cell, R=3, kind="tokens", T=4, B=9, N=3, H=5)
    seen = nf.gains_by_lag(net, theta, batch)
    for r, case in enumerate(cases):
        alone = nf.gains_by_lag(net, case.theta, case.batch)
        assert all(same_bits(a[r], b) for a, b in zip(seen[2:], alone[2:], strict=True))
        assert all(same_bits(a[r], b) for k in (0, 1) for a, b in zip(seen[k], alone[k], strict=True))


@pytest.mark.parametrize("confidence", [0, 1, 1.5, -0.1, np.nan, "0.95"])
@pytest.mark.parametrize("function", [nf.gains_by_lag, nf.saturation])
def test_a_confidence_that_makes_no_sense_is_refused(function, confidence):
    case = make_case("tanh")
    with pytest.raises((ValueError, TypeError), match="confidence"):
        function(case.net, case.theta, case.batch, confidence=confidence)


# ------------------------------------------------------------------------------------------------------------- spectrum


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("H, large", [(1, 1024), (2, 1024), (17, 1024), (17, 1)])
def test_radius_and_norm_are_the_references_whichever_way_they_are_computed(cell, dtype, H, large, monkeypatch):
    monkeypatch.setattr(spectrum, "LARGE", large)
    case = make_case(cell, H=H, dtype=dtype, seed=44)
    radius, norm = naive.spectrum(case.params["w_rec"])
    seen = nf.recurrent_spectrum(case.net, case.theta)
    assert_close(seen.radius, radius, within("float64", 1, H * H, 100))  # of eigenvalues that are no normal matrix's
    assert_close(seen.norm, norm, within("float64", 1, H * H))
    assert seen.gates == case.net.cell_object.gates


@pytest.mark.parametrize("large", [1, 1024])
def test_an_orthogonal_matrix_has_radius_and_norm_1_and_a_nilpotent_one_radius_0(large, monkeypatch):
    monkeypatch.setattr(spectrum, "LARGE", large)
    net = nf.Network("tanh", 2, 30, 2, dtype="float64")
    seen = nf.recurrent_spectrum(net, 3 * nf.init(net, "orthogonal", rng=0))
    assert_close((seen.radius[0], seen.norm[0]), (3, 3), within("float64", 20, 500))
    theta = np.zeros(net.size)
    nf.unpack(net, theta).w_rec[:, 0] = np.diag(np.full(29, 2.0), 1)
    seen = nf.recurrent_spectrum(net, theta)
    assert_close(seen.norm[0], 2.0, within("float64", 20, 500))
    assert seen.radius[0] < 2 * np.finfo(float).eps ** (1 / 30)


def test_replicas_have_spectra_of_their_own_and_a_nan_is_seen():
    net, theta, _, _, cases = make_replicas("lstm", R=3, H=5)
    nf.unpack(net, theta).w_rec[1, 0, 2, 0] = np.nan
    seen = nf.recurrent_spectrum(net, theta)
    assert seen.radius.shape == seen.norm.shape == (3, 4)
    assert np.isnan(seen.radius[1, 2])
    assert np.isnan(seen.norm[1, 2])
    assert np.isfinite(seen.radius).sum() == 11
    alone = nf.recurrent_spectrum(net, cases[2].theta)
    assert same_bits(seen.radius[2], alone.radius)
    assert same_bits(seen.norm[2], alone.norm)


# ------------------------------------------------------------------------------------------------------------ Jacobians


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_are_the_references(cell, dtype, kind):
    case = make_case(cell, "square", kind, T=4, B=9, N=2, H=5, dtype=dtype, seed=45)
    states = naive.forward(case.params, cell, case.plain[0])
    found = nf.step_jacobians(case.net, case.theta, case.batch.inputs)
    assert found.dtype == dtype
    wanted = [
        [naive.jacobian(case.params, cell, case.plain[0][t, b], states[t, b]) for b in range(9)] for t in range(4)
    ]
    assert_close(found, wanted, within(dtype, 4, 20))


@pytest.mark.parametrize("cell", CELLS)
def test_a_jacobian_takes_delta_back(cell):
    """v_t = J_t^T delta_t, by the kernels: where only the last step has weight, v is the delta of the step before."""
    case = make_case(cell, "square", "tokens", "last", T=5, B=9, N=2, H=7, seed=46)
    seen = nf.trace(case.net, case.theta, case.batch)
    for t in range(1, 6):
        J = nf.step_jacobians(case.net, case.theta, case.batch.inputs, at=t)
        v = np.einsum("bij,bi->bj", J, seen.delta[t].reshape(9, -1))
        assert_close(v, seen.delta[t - 1].reshape(9, -1), within("float64", 5, 100))


@pytest.mark.parametrize("cell", CELLS)
def test_a_jacobian_is_the_difference_of_the_state(cell):
    """By central differences of the last state as a function of the first one, over one step."""
    case = make_case(cell, "square", "dense", "all", T=1, B=2, N=2, H=3, seed=47)
    n, h = case.state.size, 1e-5
    nudges = h * np.eye(n).reshape(n, *case.state.shape)
    theta = np.broadcast_to(case.theta, (2 * n, case.theta.size))
    batch = nf.Batch(*(np.broadcast_to(part, (2 * n, *part.shape)) for part in case.batch))
    ends = nf.gradient(case.net, theta, batch, state=np.concatenate([nudges, -nudges])).state
    slopes = ((ends[:n] - ends[n:]) / (2 * h)).reshape(2, n // 2, 2, n // 2)
    J = nf.step_jacobians(case.net, case.theta, case.batch.inputs, at=1)
    for b in range(2):
        assert_close(J[b], slopes[b, :, b].T, differenced(h, 2, 1, 20, curvature=10))


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_cell_with_a_step_alone_has_the_same_jacobians_and_saturation(cell):
    case = make_case(cell, T=3, B=2, H=5, seed=49, gain=3.0)
    bare = dataclasses.replace(case.net.cell_object, step_vjp=None, step_jvp=None, step_vjp_jvp=None)
    net = dataclasses.replace(case.net, cell=bare)
    one, two = (nf.step_jacobians(which, case.theta, case.batch.inputs) for which in (net, case.net))
    assert_close(one, two, within("float64", 20, 500))
    one, two = (nf.saturation(which, case.theta, case.batch) for which in (net, case.net))
    assert same_bits(one.low, two.low)
    assert same_bits(one.high, two.high)


def test_an_orthogonal_linear_network_has_singular_values_1():
    case = make_case("linear", T=3, B=2, H=7)
    q = np.linalg.qr(np.random.default_rng(48).normal(size=(7, 7)))[0]
    nf.unpack(case.net, case.theta).w_rec[:] = q.reshape(7, 1, 7)
    values = np.linalg.svd(nf.step_jacobians(case.net, case.theta, case.batch.inputs), compute_uv=False)
    assert np.abs(values - 1).max() < within("float64", 20, 500)


@pytest.mark.parametrize("cell", ["tanh", "sigmoid", "relu"])
def test_a_saturated_network_has_jacobian_0(cell):
    case = make_case(cell, T=3, B=2, H=5)
    nf.unpack(case.net, case.theta).bias[:] = -400
    assert np.abs(nf.step_jacobians(case.net, case.theta, case.batch.inputs)).max() < np.exp(-350.0)


def test_an_lstm_that_forgets_nothing_keeps_its_cell():
    """With f open and i shut, dc_t/dc_{t-1} is the identity and dc_t/dh_{t-1} is 0."""
    case = make_case("lstm", T=3, B=2, H=5)
    p = nf.unpack(case.net, case.theta)
    p.bias[0], p.bias[1] = -400, 400
    J = nf.step_jacobians(case.net, case.theta, case.batch.inputs, at=2).reshape(2, 2, 5, 2, 5)
    for b in range(2):
        assert_close(J[b, 1, :, 1], np.eye(5), within("float64", 1, 100))
        assert np.abs(J[b, 1, :, 0]).max() < np.exp(-350.0)


@pytest.mark.parametrize("cell", CELLS)
def test_the_steps_asked_for_are_those_of_all(cell):
    net, theta, batch, _, cases = make_replicas(cell, R=2, kind="tokens", T=4, B=3, N=3, H=5, dtype="float32")
    every = nf.step_jacobians(net, theta, batch.inputs)
    SH = 5 * naive.CELLS[cell].states
    assert every.shape == (2, 4, 3, SH, SH)
    for at, wanted in (
        (3, every[:, 2]),
        ([3], every[:, 2:3]),
        ((4, 1), every[:, [3, 0]]),
        (np.array([2]), every[:, 1:2]),
        (range(1, 3), every[:, :2]),
    ):
        assert same_bits(nf.step_jacobians(net, theta, batch.inputs, at=at), np.ascontiguousarray(wanted))
    assert same_bits(nf.step_jacobians(net, cases[1].theta, cases[1].batch.inputs, at=np.int64(2)), every[1, 1].copy())


@pytest.mark.parametrize("at", [0, 6, -1, [], [1, 6], "1", 1.0, [1.5], True, {1}])
def test_steps_that_are_not_there_are_refused(at):
    case = make_case("tanh", T=5)
    with pytest.raises((ValueError, TypeError), match="at is"):
        nf.step_jacobians(case.net, case.theta, case.batch.inputs, at=at)


def test_the_records_are_documented_and_public():
    for name in ("SequenceMean", "LagProfile", "Saturation", "RecurrentSpectrum"):
        assert getattr(nf, name) is getattr(records, name)


def test_arguments_are_left_as_they_were():
    case = make_case("lstm", "square", "dense", "ragged", T=4, B=9)
    before = [part.copy() for part in (case.theta, *case.batch)]
    nf.saturation(case.net, case.theta, case.batch)
    nf.gains_by_lag(case.net, case.theta, case.batch)
    nf.recurrent_spectrum(case.net, case.theta)
    nf.step_jacobians(case.net, case.theta, case.batch.inputs)
    assert all(same_bits(a, b) for a, b in zip(before, (case.theta, *case.batch), strict=True))
