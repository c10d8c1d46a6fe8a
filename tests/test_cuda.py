"""Claims about backend "cuda": it is the reference, like the CPU, in the simulator and on a GPU.

Everything that a grid is given to write begins as NaN, so that what is read must have been written.
"""

from __future__ import annotations

import dataclasses
import itertools

import naive
import numpy as np
import pytest
from cases import (
    CELLS,
    CLIPS,
    DTYPES,
    FLOWS,
    KINDS,
    LOSSES,
    OPTIMIZERS,
    REDUCTIONS,
    REGULARIZERS,
    TASKS,
    make_case,
    make_replicas,
)
from conftest import INTERPRETED
from test_clipping import BLOCKS, NET, P, assert_report, direction_of, draw
from test_gradient import assert_gradient
from test_h_detach import drawn as h_detach_drawn
from test_inside import clipped_mean
from test_second import BY_DIFFERENCES, omega_by_naive
from test_tasks import assert_sampled
from test_thresholds import BAD, SETTINGS, THRESHOLDS, drawn, made
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import counter, scalars
from nbflow._compile import ONE, exact_unit
from nbflow._load import load
from nbflow.records import POLICIES

pytestmark = pytest.mark.gpu
sim = pytest.mark.sim
# What only a compiled grid can do in reasonable time.
on_device = pytest.mark.skipif(INTERPRETED, reason="too large for the simulator")
SMALL = {"T": 3, "B": 2, "N": 2, "H": 3, "M": 2}
# (T, B, N, H, M): 1 everywhere; around the sizes of warps and blocks; w_rec in shared memory and not; several parts.
SIZES = (
    (1, 1, 1, 1, 1), (4, 9, 2, 31, 2), (3, 5, 3, 32, 4), (3, 20, 5, 33, 16), (5, 6, 17, 50, 17), (140, 2, 3, 6, 2),
    (3, 3, 2, 130, 2), (3, 2, 2, 300, 3),
)  # fmt: skip


@pytest.fixture(autouse=True)
def memory_full_of_nan(monkeypatch):
    from nbflow.cuda import device, workspace

    def allocate(count, dtype, purpose):
        found = device.allocate(count, dtype, purpose)
        found.copy_to_device(np.full(count, np.nan if np.dtype(dtype).kind == "f" else -(2**20), dtype))
        return found

    monkeypatch.setattr(workspace, "allocate", allocate)


def assert_flow(case, penalty, reduction, tolerance, *, alpha=0.7, carried=False):
    """Assert that Omega, its count and the gradient with it are the reference's."""
    flow = case.flow(carried=carried)
    wanted = naive.omega(penalty, reduction, flow)
    d_omega = naive.omega_immediate(penalty, reduction, flow, case.params, case.net.cell)
    d = dict(flow.d_params)
    d["w_rec"] = d["w_rec"] + alpha * d_omega
    how, state = nf.Flow(penalty, alpha=alpha, reduction=reduction), case.state if carried else None
    out = nf.gradient(case.net, case.theta, case.batch, flow=how, state=state, backend="cuda")
    assert out.counted == naive.counted(flow.delta).sum()
    assert_close(out.loss, flow.loss, tolerance, "the loss")
    assert_close(out.omega, wanted, tolerance, "Omega")
    assert_close(out.d_theta, naive.pack(d), tolerance, "the gradient")


def assert_trace(case, tolerance):
    flow, seen = case.flow(), nf.trace(case.net, case.theta, case.batch, backend="cuda")
    assert_close(seen.loss, flow.loss, tolerance)
    assert_close(seen.states, flow.states, tolerance, "the states")
    assert_close(seen.delta, flow.delta, tolerance, "delta")
    assert_close(seen.delta_norm, np.sqrt((flow.delta**2).sum(axis=(-2, -1))), tolerance, "the norms")
    assert_close(seen.gain, flow.gain, tolerance, "the gain")


# ------------------------------------------------------------------------------------------ gradient, trace, predict


@sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_references_for_the_smallest_networks(cell, kind):
    loss = LOSSES[(CELLS.index(cell) + KINDS.index(kind)) % len(LOSSES)]
    case = make_case(cell, loss, kind, "ragged", **SMALL)
    for carried in (False, True):
        out, flow = assert_gradient(case, within("float64", 3, case.terms), carried=carried, backend="cuda")
        assert np.linalg.norm(out.d_theta) > 1e-3
        if carried:
            assert_close(out.state, flow.states[-1], within("float64", 3, case.terms), "the state")


@sim
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_references(loss):
    case = make_case("tanh", loss, "tokens", "ragged", **SMALL, seed=1)
    assert_gradient(case, within("float64", 3, case.terms), backend="cuda")


@sim
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("room", ["all", "one sequence"])
def test_gradient_is_the_references_where_w_rec_is_not_in_shared_memory(cell, room, monkeypatch):
    """Shared memory is made too small for w_rec, and then for more than one sequence of a block."""
    from nbflow.cuda import workspace

    case = make_case(cell, "square", "dense", "ragged", **SMALL, seed=2)
    rows = 1 if room == "one sequence" else 2 if cell == "lstm" else 4
    monkeypatch.setattr(workspace, "SHARED_BYTES", 8 * 3 * rows * max(2, len(case.net.cell_object.gates)))
    cut = workspace.blocks_for(case.net)
    assert (cut.resident, cut.rows) == (False, rows)
    assert_gradient(case, within("float64", 3, case.terms), backend="cuda")


@sim
def test_parts_of_the_steps_add_up(monkeypatch):
    """Also where a part, or all parts but the first, hold nothing of a sequence."""
    if INTERPRETED:
        from nbflow.cuda import weights

        monkeypatch.setattr(weights, "PART", 4)
        case = make_case("tanh", "square", "dense", "ragged", T=5, B=2, N=2, H=2, M=1)
    else:
        case = make_case("tanh", "square", "dense", "ragged", T=150, B=2, N=2, H=2, M=1)
    assert_gradient(case, within("float64", 5, case.terms), backend="cuda")
    assert_flow(case, "norm", "mean", within("float64", 5, 16 * case.terms))


@sim
@pytest.mark.parametrize("kind", KINDS)
def test_matrices_of_several_tiles_are_the_references(kind):
    """In the simulator, whose tiles are small; on a GPU the largest of SIZES are.

    Both factors are wider than a tile, and not by a whole one; their rows do not fill the last piece.
    """
    case = make_case("gru", "square", kind, "ragged", T=3, B=3, N=9, H=9, M=10, seed=6)
    assert_gradient(case, within("float64", 3, case.terms), backend="cuda")
    assert_flow(case, "norm", "sum", within("float64", 3, 16 * case.terms))


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic with Inf
def test_an_infinite_gradient_at_one_token_leaves_the_others_alone():
    case = make_case("tanh", "square", "tokens", "all", T=2, B=2, N=2, H=2, M=1)
    case.batch.inputs[...] = [0, 1]  # a token for each sequence
    case.batch.targets[:, 0] = np.finfo(np.float64).max
    case.batch.weights[:, 0] = 4.0
    rows = nf.unpack(case.net, nf.gradient(case.net, case.theta, case.batch, backend="cuda").d_theta).w_in
    wanted = nf.unpack(case.net, nf.gradient(case.net, case.theta, case.batch).d_theta).w_in
    assert not np.isfinite(rows[0]).any()
    assert_close(rows[1], wanted[1], within("float64", 2, case.terms))


@sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1, 2])
def test_the_mean_of_clipped_group_gradients_is_the_references(cell, size):
    k = CELLS.index(cell)
    sizes = SMALL | {"B": 4}
    case = make_case(cell, LOSSES[k % len(LOSSES)], KINDS[k % 2], "ragged", **sizes, seed=3)
    threshold = clipped_mean(case, size, 1.0)[1].mean()
    wanted, norms = clipped_mean(case, size, threshold)
    assert norms.min() < threshold < norms.max()
    how = {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}
    out = nf.gradient(case.net, case.theta, case.batch, backend="cuda", **how)
    tolerance = within("float64", 3, 4 * case.terms)
    assert_close(out.d_theta, wanted, tolerance, "the mean")
    assert_close(out.example_norms, norms, tolerance, "the norms")


@sim
@pytest.mark.parametrize("cell", CELLS)
def test_omega_is_the_references_for_the_smallest_networks(cell):
    k = CELLS.index(cell)
    case = make_case(cell, "square", KINDS[k % 2], "ragged", **SMALL, seed=12)
    penalty, reduction = FLOWS[k % len(FLOWS)], ("sum", "mean")[k % 2]
    assert_flow(case, penalty, reduction, within("float64", 3, 16 * case.terms), carried=k > 2)


@sim
@pytest.mark.parametrize("derivative", ["detached", "exact"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_other_derivatives_of_omega_are_the_references(cell, derivative):
    """By differences of what the reference says Omega is; and to rounding the CPU's."""
    k = CELLS.index(cell)
    case = make_case(cell, LOSSES[k % len(LOSSES)], KINDS[k // 3], "ragged", **SMALL | {"H": 2}, seed=13)
    how = nf.Flow(FLOWS[k % len(FLOWS)], 0.7, derivative, REDUCTIONS[k % 2])
    plain = nf.gradient(case.net, case.theta, case.batch)
    there, here = (nf.gradient(case.net, case.theta, case.batch, flow=how, backend=name) for name in ("cuda", "cpu"))
    tolerance = within("float64", 3, 64 * case.terms)
    assert_close(there.d_theta, here.d_theta, tolerance)
    assert_close(there.omega, here.omega, tolerance)
    assert there.counted == here.counted > 0
    wanted = naive.central_difference(omega_by_naive(case, how.penalty, how.reduction, derivative), case.theta)
    got = (there.d_theta - plain.d_theta) / 0.7
    assert np.abs(got - wanted).max() < BY_DIFFERENCES * max(np.abs(wanted).max(), 1)


@sim
def test_the_exact_derivative_of_omega_has_the_bits_of_a_network_alone_and_from_a_first_state():
    """And a replica of alpha 0 those of a gradient without Omega."""
    net, theta, batch, state, cases = make_replicas("gru", R=2, loss="softmax", kind="tokens", **SMALL | {"H": 2})
    alpha = np.array([0.7, 0.0])
    out = nf.gradient(net, theta, batch, state=state, flow=nf.Flow("norm", alpha, "exact", "mean"), backend="cuda")
    for case, flow, found in zip(cases, (nf.Flow("norm", 0.7, "exact", "mean"), None), out.d_theta, strict=True):
        asked = {"state": case.state, "flow": flow}
        alone = nf.gradient(net, case.theta, case.batch, **asked, backend="cuda")
        assert same_bits(found, alone.d_theta)
        on_cpu = nf.gradient(net, case.theta, case.batch, **asked)
        assert_close(found, on_cpu.d_theta, within("float64", 3, 64 * case.terms))


@nf.unit
def of_a_step_alone(a_in, a_rec, s):
    gate = scalars.sigmoid(a_in[0] - a_rec[0])
    return (gate * s[0] + (ONE - gate) * scalars.tanh(a_in[1] * a_rec[1]),), ()


@sim
def test_what_a_cell_and_a_loss_leave_out_is_found_by_complex_steps_as_on_the_cpu():
    cell = nf.Cell(gates=("g", "a"), states=("h",), step=of_a_step_alone, additive=False, carries=True)
    loss = dataclasses.replace(load("losses", "softmax"), share=None, slope_jvp=None)
    case = make_case("mgu", "softmax", "dense", "ragged", **SMALL | {"H": 2})
    net = dataclasses.replace(case.net, cell=cell, loss=loss)
    for flow, sums in ((None, 10), (nf.Flow("squared", 0.5, "exact"), 1000)):
        there, here = (nf.gradient(net, case.theta, case.batch, flow=flow, backend=name) for name in ("cuda", "cpu"))
        assert_close(there.d_theta, here.d_theta, within("float64", 3, sums * case.terms))


@sim
def test_omega_of_alpha_0_leaves_the_gradient_alone():
    case = make_case("tanh", "square", "dense", "all", **SMALL)
    one = nf.gradient(case.net, case.theta, case.batch, backend="cuda")
    two = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 0.0), backend="cuda")
    assert same_bits(one.d_theta, two.d_theta)


@sim
@pytest.mark.parametrize("cell", ["gru", "linear", "lstm"])
def test_a_trace_is_the_references(cell):
    case = make_case(cell, "square", "dense", "ragged", **SMALL, seed=3)
    assert_trace(case, within("float64", 3, 4 * case.terms))


@sim
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_outputs_are_the_references(cell):
    case = make_case(cell, "square", "tokens", "all", **SMALL, seed=4)
    y = nf.predict(case.net, case.theta, case.batch.inputs, backend="cuda")
    wanted = naive.outputs(case.params, naive.forward(case.params, cell, case.plain[0]))
    assert_close(y, wanted, within("float64", 3, case.terms))


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
@pytest.mark.parametrize("site", ["preactivation", "state"])
@pytest.mark.parametrize("by", ["value", "norm"])
def test_a_clip_inside_back_propagation_is_the_cpus(cell, site, by):
    """Which tests/test_inside.py holds against the reference; some entries are clipped, and some are not."""
    case = make_case(cell, "square", "dense", "ragged", **SMALL, seed=5)
    plain = nf.gradient(case.net, case.theta, case.batch)
    how = nf.HiddenClip(0.2 if by == "value" else 0.3, site, by)
    got, wanted = (
        nf.gradient(case.net, case.theta, case.batch, clip_hidden=how, backend=backend) for backend in ("cuda", "cpu")
    )
    assert_close(got.d_theta, wanted.d_theta, within("float64", 3, case.terms))
    assert not same_bits(wanted.d_theta, plain.d_theta)


@sim
def test_replicas_have_their_own_networks_and_data_and_the_bits_that_they_have_alone():
    net, theta, batch, state, cases = make_replicas("tanh", R=2, loss="softmax", kind="tokens", **SMALL)
    out = nf.gradient(net, theta, batch, state=state, backend="cuda")
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, state=case.state, backend="cuda")
        assert_close(out.d_theta[r], naive.pack(case.flow(carried=True).d_params), within("float64", 3, case.terms))
        for name in ("loss", "d_theta", "state"):
            assert same_bits(getattr(out, name)[r], getattr(alone, name)), name


@sim
@pytest.mark.parametrize("cell", ["lstm", "relu"])
def test_what_looks_at_states_and_gradients_finds_on_the_card_what_it_finds_on_the_cpu(cell, monkeypatch):
    """And computes there: nothing that takes a backend may run on the CPU in silence."""
    case = make_case(cell, "square", "dense", "ragged", **SMALL)
    clips = {"norm": nf.Clip("norm", 0.1), "hidden": nf.HiddenClip(0.1), "example": nf.ExampleClip(0.1)}
    looks = (
        lambda on: nf.step_jacobians(case.net, case.theta, case.batch.inputs, backend=on),
        lambda on: nf.saturation(case.net, case.theta, case.batch, backend=on).part.mean,
        lambda on: nf.gains_by_lag(case.net, case.theta, case.batch, backend=on).norms,
        lambda on: nf.clipping_bias(case.net, case.theta, [case.batch] * 2, clips, resamples=9, rng=0, backend=on).true,
    )
    wanted = [look("cpu") for look in looks]
    monkeypatch.setattr("nbflow.cpu.workspace.Workspace.point_to", lambda *_: pytest.fail("it runs on the CPU"))
    for look, found in zip(looks, wanted, strict=True):
        assert_close(look("cuda"), found, within("float64", 3, 16 * case.terms))


@sim
def test_a_workspace_serves_shorter_batches_and_other_calls():
    case = make_case("tanh", "square", "dense", "all", **SMALL)
    short = nf.Batch(*(part[:2] for part in case.batch))
    space = nf.workspace(case.net, case.batch)
    for batch, how in ((case.batch, None), (short, nf.Flow("norm", 1.0)), (short, None)):
        one = nf.gradient(case.net, case.theta, batch, flow=how, backend="cuda", workspace=space)
        two = nf.gradient(case.net, case.theta, batch, flow=how, backend="cuda")
        assert same_bits(tuple(one), tuple(two))


@on_device
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("T, B, N, H, M", SIZES)
def test_gradient_and_omega_are_the_references_for_every_size(cell, T, B, N, H, M):
    for k, dtype in enumerate(DTYPES):
        loss = "square" if M == 1 else LOSSES[(B + H + k) % len(LOSSES)]
        for kind, penalty in itertools.product(KINDS, FLOWS):
            case = make_case(cell, loss, kind, "ragged", T, B, N, H, M, dtype)
            assert_gradient(case, within(dtype, T, case.terms), carried=k == 0, backend="cuda")
            assert_flow(case, penalty, "mean", within(dtype, T, 16 * case.terms))
            assert_trace(case, within(dtype, T, 16 * case.terms))


@on_device
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("T, B, N, H, M", [(140, 6, 17, 50, 17), (3, 3, 2, 130, 2)])
def test_the_other_derivatives_of_omega_are_the_cpus_for_larger_networks(cell, T, B, N, H, M):
    """Which tests/test_second.py holds against the reference; w_rec in shared memory and not, several parts."""
    for k, (dtype, derivative) in enumerate((("float64", "exact"), ("float32", "detached"))):
        loss = "square" if M == 1 else LOSSES[(B + H + k) % len(LOSSES)]
        case = make_case(cell, loss, KINDS[k % 2], "ragged", T, B, N, H, M, dtype)
        flow = nf.Flow(FLOWS[k % len(FLOWS)], 0.7, derivative, "mean")
        there, here = (nf.gradient(case.net, case.theta, case.batch, flow=flow, backend=on) for on in ("cuda", "cpu"))
        assert_close(there.d_theta, here.d_theta, within(dtype, T, 64 * case.terms, 10))
        assert_close(there.omega, here.omega, within(dtype, T, 16 * case.terms))


@on_device
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1, 4])
def test_group_gradients_of_every_cell_are_clipped_as_the_reference_does(cell, size):
    for dtype, kind in itertools.product(DTYPES, KINDS):
        case = make_case(cell, "square", kind, "ragged", T=12, B=20, N=5, H=40, M=3, dtype=dtype, seed=7)
        threshold = clipped_mean(case, size, 1.0)[1].mean()
        wanted, norms = clipped_mean(case, size, threshold)
        how = {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}
        out = nf.gradient(case.net, case.theta, case.batch, backend="cuda", **how)
        assert_close(out.d_theta, wanted, within(dtype, 12, 4 * case.terms), "the mean")
        assert_close(out.example_norms, norms, within(dtype, 12, 4 * case.terms), "the norms")


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "choices",
    [{"flow": nf.Flow("norm", 1.0)}, {"flow": nf.Flow("norm", 1.0, "exact")}, {"clip_example": 0.1}],
    ids=["flow", "exact flow", "example"],
)
def test_a_rerun_has_the_same_bits(cell, dtype, choices):
    case = make_case(cell, "softmax", "tokens", "ragged", T=70, B=13, N=6, H=50, M=4, dtype=dtype)
    outs = [nf.gradient(case.net, case.theta, case.batch, backend="cuda", **choices) for _ in range(3)]
    assert same_bits(tuple(outs[0]), tuple(outs[1]))
    assert same_bits(tuple(outs[0]), tuple(outs[2]))


@on_device
@pytest.mark.parametrize("cell", CELLS)
def test_hot_grids_have_no_local_memory_on_this_card(cell):
    """Which is slow: what does not fit into registers would lie there. And the card gives a block all its threads."""
    from nbflow.cuda import backward, device, forward, second, tangent, weights, workspace

    case = make_case(cell, H=50, dtype="float32")
    nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 1.0, "exact"), backend="cuda")
    cut = workspace.blocks_for(case.net)
    bound = case.net.cell_object, np.float32, cut.rows, cut.resident
    for kernel in (
        forward.build_forward(*bound), backward.build_backward(*bound), tangent.build_tangent(*bound, True),
        second.build_second(*bound, True), weights.build_weights(np.float32),
    ):  # fmt: skip
        local, threads = kernel.get_local_mem_per_thread(), kernel.get_max_threads_per_block()
        assert local
        assert set(local.values()) == {0}
        assert min(threads.values()) >= device.MOST_THREADS


@sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_block_asks_for_more_than_every_card_has(cell, dtype):
    """48 KB of shared memory, what grids declare for themselves included, and 1024 threads."""
    from nbflow.cuda import device, weights, workspace

    own = max(256 * 8, 2 * weights.HELD * 8)
    assert device.MOST_THREADS * 8 <= own <= 48 * 1024
    assert max(device.MOST_THREADS, weights.THREADS) <= 1024
    for hidden in (1, 31, 50, 64, 104, 105, 110, 200, 512, 736):
        cut = workspace.blocks_for(nf.Network(cell, 2, hidden, 2, "square", dtype))
        assert max(cut.forward_bytes, cut.backward_bytes) + 256 * 8 <= 48 * 1024
        assert cut.rows in (1, 2, 4)


# ------------------------------------------------------------------------------------------------------------- clips


@sim
@pytest.mark.parametrize("rule", CLIPS)
def test_a_clip_is_the_references(rule):
    for threshold in (0.5, 100.0):
        d, theta = draw("float64", 1), draw("float64", 51)
        done = nf.clip(NET["float64"], d, nf.Clip(rule, threshold), theta=theta, rng=0, backend="cuda")
        wanted = naive.clip(rule, d, threshold, theta=theta, blocks=BLOCKS, direction=direction_of(0))
        assert_close(done.d_theta, wanted.d_theta, within("float64", 1, P))
        assert_report(done, d, "float64")
        assert done.fraction == near(wanted.fraction)
        if threshold > 10 and rule not in ("normalize", "smoothed"):
            assert same_bits(done.d_theta, d)


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic with NaN
@pytest.mark.parametrize(
    "rule, policy",
    [("norm", policy) for policy in POLICIES if policy != "raise"]
    + [("unit", "zero"), ("value", "zero"), ("random", "zero")],
)
def test_what_stands_in_for_a_bad_gradient_is_what_the_cpu_puts_there(rule, policy):
    """Of three replicas, of which the first is finite: the same numbers and the same report."""
    d, theta = (np.stack([draw("float64", seed) for seed in seeds]) for seeds in ((1, 2, 3), (51, 52, 53)))
    d[1, 3], d[2, [5, 7, 9]] = np.nan, (np.nan, np.inf, -np.inf)
    done, wanted = (
        nf.clip(NET["float64"], d, nf.Clip(rule, 0.5, policy), theta=theta, rng=7, backend=backend)
        for backend in ("cuda", "cpu")
    )
    for name in done._fields:
        assert_close(getattr(done, name), getattr(wanted, name), within("float64", 1, P), name)


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_policy_raise_names_the_parameter_and_an_endless_random_step_is_refused():
    d = draw("float64", 1)
    d[0] = np.nan
    with pytest.raises(FloatingPointError, match="1 of w_in"):
        nf.clip(NET["float64"], d, nf.Clip("norm", 1.0, "raise"), backend="cuda")
    with pytest.raises(ValueError, match="finite one"):
        nf.clip(NET["float64"], d, nf.Clip("norm", np.inf), backend="cuda")


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_norms_neither_overflow_nor_vanish(scale):
    d = draw("float64", 1, scale)
    done = nf.clip(NET["float64"], d, nf.Clip("norm", scale), backend="cuda")
    assert_close(done.norm, naive.length(d), within("float64", 1, P))
    assert_close(naive.length(done.d_theta), scale, within("float64", 1, P))


# ------------------------------------------------------------------------------------------------ samples and training


@sim
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_has_the_bits_of_the_cpus(task, dtype):
    from nbflow.cuda import program, workspace
    from nbflow.model._shape import Shape

    found, seed = nf.load_task(task), 2**40 + 1
    net = nf.Network("tanh", found.n_in, 2, found.n_out, found.loss, dtype)
    lead = found.steps(11), 2
    space = workspace.Workspace(net, Shape(2, *lead, found.tokens), workspace.Purpose())
    program.sample(space, found, seed, counter.TRAIN, 3, 11)
    inputs = space.read("TOKENS", *lead) if found.tokens else space.read("INPUTS", *lead, found.n_in)
    targets = space.read("CLASSES", *lead) if found.classes else space.read("TARGETS", *lead, found.n_out)
    got = nf.Batch(inputs, targets, space.read("WEIGHTS", *lead))
    wanted = found.sample(seed=seed, index=3, batch_size=2, length=11, replicas=2, dtype=dtype)
    assert same_bits(tuple(got), tuple(wanted))
    for r in range(2):
        assert_sampled(task, nf.Batch(*(part[r] for part in got)), seed, counter.TRAIN, r, 3, 11, dtype)


def assert_same_run(one, two, tolerance):
    """Assert that two runs have the same parameters, rows and evaluations."""
    assert_close(one.theta, two.theta, tolerance, "theta")
    assert one.history.keys() == two.history.keys()
    for name in one.history:
        if name != "seconds":
            assert_close(one.history[name], two.history[name], tolerance, name)
    assert one.evaluations == two.evaluations
    assert (one.updates, one.first_passage) == (two.updates, two.first_passage)


def small_training():
    """Return a network, its parameters, and batches that grow."""
    net = nf.Network("tanh", 1, 2, 1, "square", "float64")

    def batch(update):
        rng = np.random.default_rng(update)
        lead = (1 + update // 2, 1)
        return nf.Batch(rng.normal(size=(*lead, 1)), rng.normal(size=(*lead, 1)), np.ones(lead))

    return net, nf.init(net, "basic_tanh", rng=0), batch


@sim
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_on_given_batches_is_the_cpus(optimizer):
    """Batches grow, so that the workspace is cut anew and what the optimizer keeps must move along."""
    net, theta, batch = small_training()
    recipe = nf.Recipe(optimizer, lr=lambda update: 0.1 / (1 + update), max_updates=3, record_every=2)
    runs = [nf.train(net, theta, batch, recipe, backend=backend) for backend in ("cuda", "cpu")]
    assert_same_run(*runs, within("float64", 10, 10))
    assert np.linalg.norm(runs[0].theta - theta) > 1e-3


@sim
@pytest.mark.parametrize("task", TASKS)
def test_training_on_a_task_is_the_cpus(task):
    """Replicas with their own threshold, rate and alpha; lengths that vary; an evaluation; callbacks that see theta.

    The first task has two updates and a flow; of the others it is samples, loss and score that differ.
    """
    found = nf.load_task(task)
    net = nf.Network("tanh", found.n_in, 2, found.n_out, found.loss, "float64")
    theta = nf.init(net, "basic_tanh", rng=0, replicas=2)
    each = np.array([0.02, 1.0])
    flow = nf.Flow("norm", each, "exact") if task == TASKS[0] else None
    recipe = nf.Recipe(lr=0.1 * each, batch_size=1, lengths=(10, 11), clip=nf.Clip("norm", each), flow=flow,
                       max_updates=2 if flow else 1, evaluate_every=1, evaluate_size=3 if flow else 2)  # fmt: skip
    seen, runs = [], []
    for backend in ("cuda", "cpu"):
        runs.append(nf.train(net, theta, task, recipe, seed=5, backend=backend,
                             callbacks=[lambda run: seen.append(run.theta.copy())]))  # fmt: skip
    assert_same_run(*runs, within("float64", 22, 10))
    assert_close(seen[0], seen[1], within("float64", 22, 10))


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic with NaN
@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_is_the_references(name):
    """Of three replicas, each with norms of its own, some of which are not finite."""
    from nbflow.cpu.report import FINITE, NORM, SCALE
    from nbflow.cuda import threshold, workspace
    from nbflow.model._shape import Shape
    from nbflow.training.threshold import Follower

    norms = drawn(2, n=24, size=(3,))
    norms[[4, 5, 20], [0, 1, 2]] = BAD
    space = workspace.Workspace(NET["float64"], Shape(3, 0, 0, False), workspace.Purpose(rule=load("clips", "norm")))
    memory, got = threshold.Memory(Follower(made(name), np.zeros((3, 1)))), []
    for update, row in enumerate(norms):
        report = np.ones((3, space.history_width - 4))
        report[:, FINITE], report[:, NORM], report[:, SCALE] = np.isfinite(row), row * 4, 4
        space.write("CLIP_REPORT", report)
        memory.follow(space, update)
        got.append(space.read("THRESHOLD", 1)[:, 0])
    for r in range(3):
        wanted = [naive.THRESHOLDS[name](norms[: k + 1, r], **SETTINGS[name]) for k in range(len(norms))]
        np.testing.assert_allclose(np.array(got)[:, r], wanted, rtol=within("float64", 20, 500))


@sim
@pytest.mark.parametrize("kind", ["text", "music"])
def test_training_on_a_users_data_is_the_cpus(kind):
    """Also what is held out: text in one stream, whose state is carried over, pieces of unlike lengths."""
    from nbflow.data import PianoRollTask, Text

    rng = np.random.default_rng(3)
    if kind == "text":
        task = Text(rng.integers(0, 3, 140).astype(np.int32), ("a", "b", "c")).task(held_out=110 / 140)
    else:
        pieces = [(rng.random((length, 2)) < 0.5).astype(np.uint8) for length in (5, 3, 4)]
        task = PianoRollTask(pieces[:2], pieces[2:])
    net = nf.Network("tanh", task.n_in, 2, task.n_out, task.loss, "float64")
    theta, recipe = nf.init(net, "basic_tanh", rng=0), nf.Recipe(lr=0.1, batch_size=2, lengths=(2, 4), max_updates=2,
                                                                 record_every=1, evaluate_every=2)  # fmt: skip
    runs = [nf.train(net, theta, task, recipe, seed=4, replica_ids=[6], backend=backend) for backend in ("cuda", "cpu")]
    assert_close(runs[0].evaluations["score"], runs[1].evaluations["score"], within("float64", 100, 10))
    runs[1].evaluations["score"] = runs[0].evaluations["score"]
    assert_same_run(*runs, within("float64", 4, 10))


@sim
def test_training_with_a_threshold_that_follows_the_norms_is_the_cpus():
    """Also where the workspace is cut anew, which must not forget."""
    net, theta, source = small_training()
    recipe = nf.Recipe(clip=nf.Clip("norm", made("percentile")), max_updates=5, record_every=2)
    runs = [nf.train(net, theta, source, recipe, backend=backend) for backend in ("cuda", "cpu")]
    assert_same_run(*runs, within("float64", 10, 10))
    assert len(set(runs[0].history["threshold"])) == 3


@sim
def test_training_with_a_clip_by_example_under_other_numbers_is_the_cpus():
    task = nf.load_task("multiplication")
    net = nf.Network("tanh", task.n_in, 2, task.n_out, task.loss, "float64")
    theta = nf.init(net, "basic_tanh", rng=0, replicas=2)
    recipe = nf.Recipe(batch_size=2, lengths=10, max_updates=2, evaluate_every=2, evaluate_size=2,
                       clip_example=np.array([0.3, np.inf]))  # fmt: skip
    runs = [nf.train(net, theta, task, recipe, replica_ids=[5, 2**24 - 1], backend=backend)
            for backend in ("cuda", "cpu")]  # fmt: skip
    assert_same_run(*runs, within("float64", 22, 10))
    assert runs[0].evaluations["update"] == [2]


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_steps_are_drawn_under_the_numbers_of_the_replicas():
    net = nf.Network("linear", 1, 1, 1, "square", "float64")
    theta = np.ones((2, net.size))
    batch = nf.Batch(np.full((2, 2, 1, 1), 1e200), np.ones((2, 2, 1, 1)), np.ones((2, 2, 1)))
    recipe = nf.Recipe(lr=1.0, clip=nf.Clip("norm", 1.0, "random"), max_updates=1)
    runs = [nf.train(net, theta, lambda update: batch, recipe, replica_ids=[9, 4], backend=backend)
            for backend in ("cuda", "cpu")]  # fmt: skip
    assert_close(runs[0].theta - theta, runs[1].theta - theta, within("float64", 1, net.size))
    assert not same_bits(runs[0].theta[0], runs[0].theta[1])


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_endless_random_step_stops_training():
    net = nf.Network("linear", 1, 1, 1, "square", "float64")
    batch = nf.Batch(np.ones((2, 1, 1)), np.ones((2, 1, 1)), np.ones((2, 1)))
    recipe = nf.Recipe(clip=nf.Clip("norm", "zscore", "random"), max_updates=3)  # it is infinite as it warms up
    with pytest.raises(FloatingPointError, match=r"replica 0 is not finite at update 0.* give a finite one"):
        nf.train(net, np.full(net.size, 1e200), lambda update: batch, recipe, backend="cuda")


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("threshold", [1.0, made("percentile")])
def test_policy_raise_names_the_update_and_leaves_the_one_before_to_go_on_from(tmp_path, threshold):
    """The second of two replicas fails, when the first's norm has been learnt."""
    net = nf.Network("linear", 1, 1, 1, "square", "float64")
    theta, path, broken = nf.init(net, "basic_tanh", rng=0, replicas=2), tmp_path / "run.npz", [1]

    def batch(update):
        inputs, targets = np.random.default_rng(update).normal(size=(2, 2, 2, 1, 1))
        weights = np.ones((2, 2, 1))
        if update in broken:
            targets[1], weights[1] = 1e200, 1e200
        return nf.Batch(inputs, targets, weights)

    recipe = nf.Recipe(clip=nf.Clip("norm", threshold, "raise"), max_updates=2, record_every=2)
    with pytest.raises(FloatingPointError, match=r"replica 1 is not finite .* gradient of update 1\.") as caught:
        nf.train(net, theta, batch, recipe, backend="cuda", checkpoint=path)
    saved = nf.load_run(path)
    assert caught.value.run.updates == saved.updates == 1
    assert same_bits(caught.value.run.theta, saved.theta)
    broken.clear()
    on, whole = (nf.train(net, theta, batch, recipe, backend="cuda", checkpoint=p) for p in (path, None))
    assert same_bits(on.theta, whole.theta)
    assert on.history["threshold"] == whole.history["threshold"]


@sim
def test_a_threshold_that_is_none_stops_training():
    def value(norm, memory, settings, update):
        return 1.0 - update

    net, theta, source = small_training()
    how = nf.Threshold(value=exact_unit(value), settings={})
    with pytest.raises(ValueError, match=r"threshold is \[-1.0\] at update 2; expected numbers of at least 0"):
        nf.train(net, theta, source, nf.Recipe(clip=nf.Clip("norm", how), max_updates=5), backend="cuda")


@sim
def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    net = nf.Network("tanh", 1, 2, 1, "square", "float64")
    theta, rng = nf.init(net, "basic_tanh", rng=0), np.random.default_rng(1)
    data = nf.Batch(rng.normal(size=(2, 1, 1)), rng.normal(size=(2, 1, 1)), np.ones((2, 1)))
    path, updates = tmp_path / "run.npz", []

    def batch(update):
        if update == 3 and 3 not in updates:
            updates.append(update)
            raise KeyboardInterrupt
        return data

    recipe = nf.Recipe("momentum", max_updates=5, record_every=2, clip=nf.Clip("norm", made("percentile")))
    stopped, run = (nf.train(net, theta, batch, recipe, checkpoint=path, backend="cuda") for _ in range(2))
    whole = nf.train(net, theta, batch, recipe, backend="cuda")
    assert (stopped.interrupted, stopped.updates, run.updates) == (True, 3, 5)
    assert same_bits(run.theta, whole.theta)
    assert {**run.history, "seconds": 0} == {**whole.history, "seconds": 0}


@sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_policy_raise_stops_training_before_the_update():
    net = nf.Network("linear", 1, 1, 1, "square", "float64")
    theta = np.full(net.size, 1e200)
    batch = nf.Batch(np.ones((2, 1, 1)), np.ones((2, 1, 1)), np.ones((2, 1)))
    recipe = nf.Recipe(clip=nf.Clip("norm", 1.0, "raise"), max_updates=3)
    with pytest.raises(FloatingPointError, match="not finite"):
        nf.train(net, theta, lambda update: batch, recipe, backend="cuda")


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_longer_run_is_the_cpus_and_has_the_same_bits_again(dtype):
    net = nf.Network("tanh", 6, 50, 4, dtype=dtype)
    theta = nf.init(net, "smart_tanh", rng=0, replicas=5)
    recipe = nf.Recipe(lengths=(10, 40), clip=nf.Clip("norm", 1.0), max_updates=20, record_every=7,
                       evaluate_every=10, evaluate_size=500)  # fmt: skip
    runs = [nf.train(net, theta, "temporal_order", recipe, backend=backend) for backend in ("cuda", "cpu", "cuda")]
    assert_close(runs[0].theta, runs[1].theta, within(dtype, 800, 1000))
    assert same_bits(runs[0].theta, runs[2].theta)


# ----------------------------------------------------------------------------------------------------------- refusals


@sim
@pytest.mark.parametrize(
    "name, choices",
    [
        ("recompute_every", {"recompute_every": 1}),
        ("wrt", {"wrt": "state"}),
    ],
)
def test_what_the_backend_lacks_is_refused_by_its_name(name, choices):
    case = make_case("lstm", **SMALL)
    with pytest.raises(NotImplementedError, match=rf"^{name} is .* backend='cpu'"):
        nf.gradient(case.net, case.theta, case.batch, backend="cuda", **choices)


@sim
@pytest.mark.parametrize("penalty", REGULARIZERS)
def test_a_penalty_of_another_kind_is_refused_by_its_name(penalty):
    case = make_case("tanh", **SMALL)
    with pytest.raises(NotImplementedError, match=penalty):
        nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0), backend="cuda")


@sim
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("when", ["ragged", "all"])
def test_a_penalty_of_states_is_the_references(cell, when):
    case = make_case(cell, "square", "dense", when, **SMALL | {"T": 4})
    flow = nf.Flow("norm_stabilizer", 0.7)
    plain = nf.gradient(case.net, case.theta, case.batch)
    here, there = (nf.gradient(case.net, case.theta, case.batch, flow=flow, backend=name) for name in ("cpu", "cuda"))
    tolerance = within("float64", 5, 500)
    slope = naive.regularizer_slope("norm_stabilizer", case.theta, *case.sizes, case.plain)
    assert_close(there.d_theta, plain.d_theta + 0.7 * slope, tolerance)
    assert_close(there.d_theta, here.d_theta, tolerance)
    assert_close(there.omega, here.omega, tolerance)
    assert there.counted == here.counted > 0
    asked = {"flow": flow, "state": case.state, "clip_hidden": nf.HiddenClip(0.1)}
    carried = [nf.gradient(case.net, case.theta, case.batch, **asked, backend=name).d_theta for name in ("cpu", "cuda")]
    assert_close(carried[1], carried[0], tolerance)


@sim
def test_a_penalty_of_states_in_training_is_the_cpus_beside_examples_that_are_clipped():
    case = make_case("gru", **SMALL)
    recipe = nf.Recipe(lr=0.1, flow=nf.Flow("norm_stabilizer", lambda k: 0.5 - 0.5 * k), clip_example=0.3,
                       max_updates=2, record_every=1, evaluate_every=0)  # fmt: skip
    runs = [nf.train(case.net, case.theta, lambda _: case.batch, recipe, backend=name) for name in ("cpu", "cuda")]
    assert_close(runs[1].theta, runs[0].theta, within(case.net.dtype, 12, 500))
    assert_close(
        np.array(runs[1].history["omega"]), np.array(runs[0].history["omega"]), within(case.net.dtype, 12, 500)
    )


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_penalty_of_states_of_larger_networks_is_the_cpus(dtype):
    flow, case = nf.Flow("norm_stabilizer", 0.7), make_case("lstm", T=40, B=9, N=3, H=130, M=2, dtype=dtype)
    found = [nf.gradient(case.net, case.theta, case.batch, flow=flow, backend=name) for name in ("cpu", "cuda")]
    assert_close(found[1].d_theta, found[0].d_theta, within(dtype, 40, case.terms))
    assert_close(found[1].omega, found[0].omega, within(dtype, 40, case.terms))


@sim
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_h_detach_draws_the_steps_of_the_reference(cell):
    how = nf.HDetach(0.5, seed=3, index=2)
    net, theta, batch, _, cases = make_replicas(cell, R=2, **SMALL | {"T": 5})
    out = nf.gradient(net, theta, batch, h_detach=how, backend="cuda")
    for r, case in enumerate(cases):
        steps = h_detach_drawn(how, 5, replica=r)
        flow = naive.backward(case.params, cell, net.loss, case.plain, detached=steps)
        assert_close(out.d_theta[r], naive.pack(flow.d_params), within(net.dtype, 5, case.terms))


@sim
def test_h_detach_in_training_is_the_cpus():
    case = make_case("lstm", **SMALL)
    recipe = nf.Recipe(lr=0.1, h_detach=nf.HDetach(0.5), max_updates=2, evaluate_every=0)
    runs = [nf.train(case.net, case.theta, lambda _: case.batch, recipe, backend=name) for name in ("cpu", "cuda")]
    assert_close(runs[1].theta, runs[0].theta, within(case.net.dtype, 12, 500))


@on_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_h_detach_of_larger_networks_is_the_cpus(dtype):
    how, case = nf.HDetach(0.5, seed=4), make_case("lstm", T=40, B=9, N=3, H=130, M=2, dtype=dtype)
    found = [nf.gradient(case.net, case.theta, case.batch, h_detach=how, backend=name) for name in ("cpu", "cuda")]
    assert_close(found[1].d_theta, found[0].d_theta, within(dtype, 40, case.terms))


@sim
def test_every_place_in_the_table_has_its_own_name():
    from nbflow.cuda import job

    named = {name: getattr(job, name) for name in (*job.SIZES, *job.PLACES)}
    assert named == {name: k for k, name in enumerate(job.SIZES)} | job.PLACES
    assert max(job.PLACES.values()) == job.LENGTH - 2


@sim
def test_a_network_too_large_for_a_block_is_refused():
    case = make_case("tanh", H=3000)
    with pytest.raises(ValueError, match=r"n_hidden is 3000; expected at most 2944"):
        nf.predict(case.net, case.theta, case.batch.inputs, backend="cuda")


@sim
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[2] Call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY")])
def test_too_little_memory_is_one_clear_error(error, monkeypatch):
    from nbflow.cuda import device

    class Full:
        def device_array(self, count, dtype):
            raise error

    monkeypatch.setattr(device, "_module", Full())
    with pytest.raises(MemoryError, match=r"no room for 8 GB, for R=5; .* fewer replicas"):
        device.allocate(10**9, np.float64, "for R=5")


@on_device
def test_too_little_memory_of_this_card_is_the_same_error():
    from nbflow.cuda import device

    with pytest.raises(MemoryError, match=r"no room for 9 TB, for R=5; .* fewer replicas"):
        device.allocate(9 * 10**12 // 8, np.float64, "for R=5")
