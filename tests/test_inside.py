"""Claims about clipping inside a gradient (by example, by group, inside BPTT), and about `recompute_every`."""

from __future__ import annotations

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, LOSSES, make_case
from tolerance import assert_close, near, same_bits, within

import nbflow as nf

SITES = ("preactivation", "state")
BY = ("value", "norm")


def share_of(case, rows):
    """Return the reference's gradient of the part of the loss that belongs to some sequences."""
    inputs, targets, weights = case.plain
    own = np.zeros_like(weights)
    own[:, rows] = weights[:, rows]
    return naive.gradient(case.theta.astype(np.float64), *case.sizes, case.net.loss, (inputs, targets, own))[1]


def clipped_mean(case, size, threshold):
    """Return the mean over groups of clipped gradients, and their norms (book 10.11.1), the slow way."""
    B = case.batch.weights.shape[1]
    gradients = [B / size * share_of(case, list(range(k, k + size))) for k in range(0, B, size)]
    norms = np.array([naive.length(g) for g in gradients])
    factors = np.minimum(1.0, threshold / np.maximum(norms, 1e-300))
    return np.mean([f * g for f, g in zip(factors, gradients, strict=True)], axis=0), norms


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3])
def test_the_mean_of_clipped_group_gradients_is_the_references(cell, loss, kind, size):
    case = make_case(cell, loss, kind, "ragged", T=5, B=9, H=5, dtype="float64", seed=3)
    threshold = np.median(clipped_mean(case, size, 1.0)[1])
    wanted, norms = clipped_mean(case, size, threshold)
    how = {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}
    out = nf.gradient(case.net, case.theta, case.batch, **how)
    tolerance = within("float64", 5, 4 * case.terms)
    assert_close(out.d_theta, wanted, tolerance, "the mean")
    assert_close(out.example_norms, norms, tolerance, "the norms")
    # Shards are cut between groups, so the loss is summed in another order.
    assert_close(out.loss, nf.gradient(case.net, case.theta, case.batch).loss, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B", [1, 8, 20, 25])
def test_an_infinite_threshold_by_example_gives_the_plain_gradient_to_rounding(dtype, B):
    case = make_case("tanh", "softmax", "dense", "all", T=7, B=B, H=17, dtype=dtype, seed=4)
    plain = nf.gradient(case.net, case.theta, case.batch).d_theta
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=np.inf)
    assert_close(out.d_theta, plain, within(dtype, 7, case.terms))
    assert out.example_norms.shape == (B,)


def test_the_squared_norm_of_an_examples_gradient_is_the_known_double_sum():
    """||g_b||^2 = sum_{t,s} (e_t.e_s)(h_{t-1}.h_{s-1} + x_t.x_s + 1), w_out and b_out apart."""
    case = make_case("tanh", "square", "dense", "all", T=6, B=4, H=5, dtype="float64", seed=5)
    inputs, _, _ = case.plain
    flow = case.flow()
    norms = nf.gradient(case.net, case.theta, case.batch, clip_example=1.0).example_norms
    for b in range(4):
        e, h, x = flow.e_rec[:, b, 0], flow.states[:-1, b, 0], inputs[:, b]
        inside = ((e @ e.T) * (h @ h.T + x @ x.T + 1.0)).sum()
        outside = nf.unpack(case.net, share_of(case, [b]))
        output = (outside.w_out**2).sum() + (outside.b_out**2).sum()
        assert_close(norms[b] ** 2 / 16, inside + output, within("float64", 20, 500))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_clipped_gradients_is_that_of_autograd_one_by_one(torch, cell, kind):
    case = make_case(cell, "softmax", kind, "ragged", T=5, B=9, H=5, dtype="float64", seed=12)
    case = case._replace(state=np.zeros_like(case.state))
    p, shares = autograd.losses_of_sequences(torch, case, kind)
    gradients = [9 * autograd.gradient(torch, p, share) for share in shares]
    norms = np.array([np.linalg.norm(g) for g in gradients])
    threshold = np.median(norms)
    wanted = np.mean([g * min(1.0, threshold / max(n, 1e-300)) for g, n in zip(gradients, norms, strict=True)], axis=0)
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=threshold)
    assert_close(out.d_theta, wanted, within("float64", 5, case.terms))
    assert_close(out.example_norms, norms, within("float64", 5, case.terms))


def hidden_reference(case, threshold, site, by, seen=None):
    """Return the gradient with the back-propagated vector clipped at every step, by the definition.

    What the clip sees up to each sequence's last weight is added to `seen`, as sizes beside the threshold.
    """
    ends = [np.flatnonzero(column).max(initial=-1) + 1 for column in case.plain[2].T]

    def see(a, b, t):
        if seen is not None and t <= ends[b]:
            seen.extend(abs(a).ravel() if by == "value" else [naive.length(a.ravel())])

    def clip(a):
        return naive.clip(by, a.ravel(), threshold, "raise").d_theta.reshape(a.shape)

    p, (inputs, targets, weights), cell = case.params, case.plain, case.net.cell
    states = naive.forward(p, cell, inputs)
    dy = naive.loss_slope(case.net.loss, naive.outputs(p, states), targets, weights)
    d = {name: np.zeros(a.shape) for name, a in p.items()}
    for b in range(weights.shape[1]):
        delta = np.zeros(states.shape[2:])
        for t in range(len(weights), 0, -1):
            delta[0] += p["w_out"] @ dy[t - 1, b]
            if site == "state":
                see(delta, b, t)
                delta = clip(delta)
            pulled = naive.pull_back(p, cell, inputs[t - 1, b], states[t - 1, b], delta)
            if site == "preactivation":
                see(pulled.e_in, b, t)
                if not case.net.cell_object.additive:
                    see(pulled.e_rec, b, t)
            e_in, e_rec = (clip(e) if site == "preactivation" else e for e in (pulled.e_in, pulled.e_rec))
            if inputs.ndim == 2:
                d["w_in"][inputs[t - 1, b]] += e_in
            else:
                d["w_in"] += np.einsum("n,gh->ngh", inputs[t - 1, b], e_in)
            d["w_rec"] += np.einsum("n,gh->ngh", states[t - 1, b, 0], e_rec)
            d["bias"] += e_in
            if d["bias_rec"].size:
                d["bias_rec"] += e_rec
            d["w_out"] += np.outer(states[t, b, 0], dy[t - 1, b])
            d["b_out"] += dy[t - 1, b]
            delta = pulled.direct.copy()
            delta[0] += np.einsum("hgk,gk->h", p["w_rec"], e_rec)
    return naive.pack(d)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("kind", KINDS)
def test_clipping_inside_bptt_is_the_references(cell, site, by, kind):
    case = make_case(cell, "softmax", kind, "ragged", T=6, B=5, H=5, dtype="float64", seed=6)
    wanted = hidden_reference(case, 0.01, site, by)
    out = nf.gradient(case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(0.01, site=site, by=by))
    assert_close(out.d_theta, wanted, within("float64", 6, case.terms))
    plain = nf.gradient(case.net, case.theta, case.batch)
    assert naive.length(plain.d_theta - wanted) > 1e-3 * naive.length(wanted), "nothing was clipped"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("by", BY)
def test_an_infinite_threshold_inside_bptt_gives_the_same_bits_as_none(cell, site, by):
    case = make_case(cell, "softmax", "dense", "all", T=6, B=9, H=7, dtype="float32", seed=7)
    plain = nf.gradient(case.net, case.theta, case.batch).d_theta
    out = nf.gradient(case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(np.inf, site=site, by=by))
    assert same_bits(out.d_theta, plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T, B", [(1500, 1), (300, 9), (130, 20), (10, 3)])
@pytest.mark.parametrize("flow", [None, nf.Flow("norm", 1.0), nf.Flow("log", 0.5, reduction="mean")])
@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_a_tape_that_is_computed_twice_gives_the_same_bits(dtype, T, B, flow, cell):
    case = make_case(cell, "softmax", "dense", "ragged", T=T, B=B, H=5, dtype=dtype, seed=8)
    plain = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    for every in (1, 64, 200, 10_000):
        out = nf.gradient(case.net, case.theta, case.batch, flow=flow, recompute_every=every)
        assert same_bits(out.d_theta, plain.d_theta)
        assert (out.loss, out.omega, out.counted) == (plain.loss, plain.omega, plain.counted)


def test_the_older_name_means_the_same_and_both_are_refused():
    case = make_case("tanh", "softmax", "dense", "ragged", T=130, B=3, H=4, dtype="float32", seed=8)
    sizes = {}
    for name in ("recompute_every", "checkpoint_every"):
        space = nf.workspace(case.net, case.batch)
        nf.gradient(case.net, case.theta, case.batch, workspace=space, **{name: 64})
        sizes[name] = sum(cut._memory.nbytes for cut in space._cut.values())
    assert sizes["checkpoint_every"] == sizes["recompute_every"]
    with pytest.raises(ValueError, match="recompute_every and checkpoint_every, its older name, are both given"):
        nf.gradient(case.net, case.theta, case.batch, recompute_every=64, checkpoint_every=64)
    with pytest.raises(ValueError, match="recompute_every is 0"):
        nf.gradient(case.net, case.theta, case.batch, checkpoint_every=0)


def test_a_tape_that_is_computed_twice_takes_less_memory():
    # Units enough that states are most of it, and not the few numbers that every step keeps whatever is asked.
    case = make_case("tanh", "softmax", "tokens", "last", T=20_000, B=1, H=32, dtype="float32", seed=9)
    sizes = []
    for every in (None, 640):
        space = nf.workspace(case.net, case.batch)
        nf.gradient(case.net, case.theta, case.batch, recompute_every=every, workspace=space)
        sizes.append(sum(cut._memory.nbytes for cut in space._cut.values()))
    assert sizes[1] < sizes[0] / 10, sizes


@pytest.mark.parametrize(
    "how, said",
    [
        ({"clip_example": 1.0, "clip_microbatch": (2, 1.0)}, "clip_microbatch"),
        ({"clip_microbatch": (4, 1.0)}, "clip_microbatch has size 4"),
        ({"clip_microbatch": 3}, "clip_microbatch is 3"),
        ({"clip_example": -1.0}, "clip_example is -1"),
        ({"clip_example": 1.0, "flow": nf.Flow("norm", 1.0)}, "flow and a clip by example"),
        ({"clip_hidden": nf.HiddenClip(1.0), "flow": nf.Flow("norm", 1.0)}, "flow and clip_hidden"),
        ({"clip_hidden": 1.0}, "clip_hidden is a float"),
        ({"recompute_every": 0}, "recompute_every is 0"),
        ({"recompute_every": 64, "clip_example": 1.0}, "recompute_every and a clip"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(how, said):
    case = make_case("tanh", "softmax", "dense", "all", T=3, B=6, H=3, dtype="float64", seed=10)
    with pytest.raises((TypeError, ValueError), match=said):
        nf.gradient(case.net, case.theta, case.batch, **how)


def test_another_site_is_refused_as_the_record_is_made():
    with pytest.raises(ValueError, match="site is 'gate'; expected one of preactivation, state"):
        nf.HiddenClip(1.0, site="gate")
    with pytest.raises(ValueError, match="by is 'both'; expected one of value, norm"):
        nf.HiddenClip(1.0, by="both")


def test_clips_inside_take_part_in_training_and_each_replica_has_its_threshold():
    net = nf.Network("tanh", 6, 5, 4)
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    common = {"lengths": 10, "max_updates": 20, "evaluate_every": 0, "batch_size": 8}
    tight = nf.train(net, theta, "temporal_order", nf.Recipe(clip_example=np.array([1e-3, np.inf]), **common))
    loose = nf.train(net, theta, "temporal_order", nf.Recipe(clip_example=np.inf, **common))
    assert same_bits(tight.theta[1], loose.theta[1])
    assert max(tight.history["norm"][-1][0], 1e-3) == near(1e-3, "float32")
    assert tight.history["norm"][-1][0] < loose.history["norm"][-1][0]


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_the_smallest_case_by_example_inside_bptt_and_recomputed(cell):
    case = make_case(cell, "softmax", "tokens", "all", T=2, B=2, H=2, dtype="float64", seed=11)
    wanted, _ = clipped_mean(case, 1, 0.5)
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=0.5)
    assert_close(out.d_theta, wanted, within("float64", 20, 500))
    hidden = nf.gradient(case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(0.1))
    assert_close(hidden.d_theta, hidden_reference(case, 0.1, "preactivation", "value"), within("float64", 20, 500))
    plain = nf.gradient(case.net, case.theta, case.batch)
    stored = nf.gradient(case.net, case.theta, case.batch, recompute_every=1)
    assert_close(stored.d_theta, plain.d_theta, within("float64", 20, 500))
