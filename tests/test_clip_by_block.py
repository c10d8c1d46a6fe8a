"""Claims about thresholds by block: each block has its own, exempt ones keep every bit, reports are of everything."""

import math

import naive
import numpy as np
import pytest
from cases import DTYPES, make_case
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow.scalars import ZERO

NET = nf.Network("gru", 3, 4, 2, loss="square", dtype="float64")
RNG = np.random.default_rng(0)
THETA, D = RNG.normal(size=(2, NET.size))
BLOCKS = naive.parameters.slices(NET.shapes)
LIMITS = {"w_in": 0.5, "w_rec": 0.01, "bias": None, "others": 0.2}
RULES = ["block", "unit", "value"]


def limit_of(name, limits=LIMITS):
    return limits.get(name, limits.get("others"))


def reference(rule, d, limits=LIMITS, theta=THETA):
    """Clip block by block, in NumPy."""
    out = d.copy()
    for name, at in BLOCKS.items():
        if limit_of(name, limits) is not None:
            shape = {name: NET.shapes[name]}
            out[at] = naive.clip(rule, d[at], limit_of(name, limits), theta=theta[at], blocks=shape).d_theta
    return out


@pytest.mark.sim
@pytest.mark.parametrize("rule", RULES)
def test_each_block_is_clipped_at_its_own_threshold(rule):
    got = nf.clip(NET, D, nf.Clip(rule, LIMITS), theta=THETA)
    wanted = reference(rule, D)
    assert_close(got.d_theta, wanted, within("float64", 30))
    assert same_bits(got.d_theta[BLOCKS["bias"]], D[BLOCKS["bias"]])
    assert got.norm == near(np.linalg.norm(D), "float64", 30)
    assert got.clipped_norm == near(np.linalg.norm(wanted), "float64", 30)
    assert got.cosine == near(D @ wanted / np.linalg.norm(D) / np.linalg.norm(wanted), "float64", 30)


@pytest.mark.sim
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_number_for_every_block_is_that_number(rule, dtype):
    net = nf.Network("gru", 3, 4, 2, loss="square", dtype=dtype)
    d, theta = D.astype(dtype), THETA.astype(dtype)
    for limit in (0.0, 0.1, 1e-30, math.inf):
        one = nf.clip(net, d, nf.Clip(rule, limit), theta=theta)
        same = nf.clip(net, d, nf.Clip(rule, {"others": limit}), theta=theta)
        named = nf.clip(net, d, nf.Clip(rule, dict.fromkeys(nf.Params._fields, limit)), theta=theta)
        assert same_bits(one.d_theta, same.d_theta)
        assert same_bits(one.d_theta, named.d_theta)
        assert np.array_equal(np.array(one[1:]), np.array(same[1:]), equal_nan=True)


@pytest.mark.sim
def test_what_is_not_named_is_exempt_and_counts_in_the_fraction():
    got = nf.clip(NET, D, nf.Clip("block", {"w_rec": 1e-3}))
    where = np.zeros(NET.size, bool)
    where[BLOCKS["w_rec"]] = True
    assert same_bits(got.d_theta[~where], D[~where])
    assert np.linalg.norm(got.d_theta[where]) == near(1e-3, "float64", 30)
    assert got.fraction == where.mean()
    assert nf.clip(NET, D, nf.Clip("value", {"b_out": 0.0})).fraction == 2 / NET.size


@nf.unit
def gone(g, norm, threshold):
    return ZERO * g


@pytest.mark.sim
@pytest.mark.parametrize("over", ["block", "unit", "entry"])
def test_a_rule_of_ones_own_that_clips_always_leaves_the_exempt_alone(over):
    got = nf.clip(NET, D, nf.Clip(nf.Rule(over=over, clip=gone), {"w_rec": None, "others": 1.0}))
    wanted = np.zeros(NET.size)
    wanted[BLOCKS["w_rec"]] = D[BLOCKS["w_rec"]]
    assert np.array_equal(got.d_theta, wanted)


@pytest.mark.sim
def test_each_replica_has_its_thresholds():
    many, limits = np.stack([D, 2 * D, D]), {"w_rec": np.array([0.1, 0.2, 0.3]), "w_in": 0.4, "b_out": None}
    got = nf.clip(NET, many, nf.Clip("block", limits))
    for r in range(3):
        alone = {**limits, "w_rec": float(limits["w_rec"][r])}
        assert same_bits(got.d_theta[r], nf.clip(NET, many[r], nf.Clip("block", alone)).d_theta)


@pytest.mark.sim
@pytest.mark.parametrize("policy", ["random", "zero", "skip", "keep", "shrink"])
def test_policies_keep_to_the_blocks(policy):
    bad = D.copy()
    bad[BLOCKS["w_in"]][0] = np.nan
    got = nf.clip(NET, bad, nf.Clip("block", LIMITS, policy), theta=THETA, rng=0)
    assert not got.finite
    if policy == "random":
        for name, at in BLOCKS.items():
            if at.stop > at.start:
                assert np.linalg.norm(got.d_theta[at]) == near(limit_of(name) or 0.0, "float64", 30)
    if policy == "zero":
        assert_close(got.d_theta, reference("block", np.nan_to_num(bad, nan=0.0)), within("float64", 30))
    with pytest.raises(FloatingPointError, match=r"not finite in 1 of w_in.*that is inf: give a finite one"):
        nf.clip(NET, bad, nf.Clip("block", {"w_rec": math.inf}), rng=0)


# ---------------------------------------------------------------------------------------------------------- in training

CASES = [make_case("gru", "square", "dense", "ragged", T=4, B=3, N=3, H=4, M=2, seed=70 + k) for k in range(5)]


def trained(clip, theta=CASES[0].theta, **choices):
    called = {name: choices.pop(name) for name in ("checkpoint", "callbacks", "backend") if name in choices}
    recipe = nf.Recipe(lr=0.1, clip=clip, max_updates=5, record_every=1, **choices)
    return nf.train(CASES[0].net, theta, lambda update: CASES[update].batch, recipe, **called)


@pytest.mark.sim
@pytest.mark.parametrize("rule", RULES)
def test_a_training_is_the_one_by_hand_and_its_history_says_norms_and_thresholds(rule):
    theta, norms, clipped = CASES[0].theta.copy(), [], []
    for update, case in enumerate(CASES):
        _, d = naive.gradient(theta, *case.sizes, case.net.loss, case.plain)
        limits = {"w_rec": 0.1 / (1 + update), "w_out": None, "others": 0.01}
        after = reference(rule, d, limits, theta)
        norms.append(np.linalg.norm(d))
        clipped.append(np.linalg.norm(after))
        theta = theta - 0.1 * after
    run = trained(nf.Clip(rule, {"w_rec": lambda update: 0.1 / (1 + update), "w_out": None, "others": 0.01}))
    assert_close(run.theta, theta, 100 * within("float64", 5, 30))
    assert run.history["norm"] == near(norms, "float64", 30, 100)
    assert run.history["clipped_norm"] == near(clipped, "float64", 30, 100)
    assert run.history["threshold.w_rec"] == near([0.1, 0.05, 0.1 / 3, 0.025, 0.02])
    assert run.history["threshold.w_in"] == [0.01] * 5
    assert "threshold" not in run.history
    assert "threshold.w_out" not in run.history


@pytest.mark.sim
def test_a_run_goes_on_to_the_same_bits_and_belongs_to_its_thresholds(tmp_path):
    path, clip = tmp_path / "run.npz", nf.Clip("block", {"w_rec": lambda update: 0.1 / (1 + update), "w_in": 0.1})
    trained(clip, checkpoint=path, callbacks=[lambda run: run.updates == 2])
    on, whole = trained(clip, checkpoint=path), trained(clip)
    assert same_bits(on.theta, whole.theta)
    assert {**on.history, "seconds": 0} == {**whole.history, "seconds": 0}
    with pytest.raises(ValueError, match=r"another training: clip.threshold"):
        trained(nf.Clip("block", {"w_rec": 0.1, "w_in": 0.1}), checkpoint=path)


@pytest.mark.sim
def test_replicas_train_as_they_would_alone():
    theta = np.stack([CASES[0].theta, 2 * CASES[0].theta])
    source = [nf.Batch(*(np.stack([part, part]) for part in case.batch)) for case in CASES]
    recipe = nf.Recipe(lr=0.1, max_updates=5, record_every=1, clip=nf.Clip("unit", {"w_rec": [0.1, 0.2], "w_in": 0.3}))
    many = nf.train(CASES[0].net, theta, source.__getitem__, recipe)
    for r, limit in enumerate((0.1, 0.2)):
        assert same_bits(many.theta[r], trained(nf.Clip("unit", {"w_rec": limit, "w_in": 0.3}), theta[r]).theta)
    assert many.history["threshold.w_rec"][-1] == [0.1, 0.2]


def test_of_a_stack_a_name_is_that_of_every_layer():
    layers = [
        nf.Network(cell, n, h, 2, loss="square", dtype="float64") for cell, n, h in (("gru", 2, 3), ("tanh", 3, 4))
    ]
    net = nf.Stack(layers)
    d = np.random.default_rng(1).normal(size=net.size)
    out = nf.unpack(net, nf.clip(net, d, nf.Clip("block", {"w_rec": 0.1})).d_theta)
    for before, after in zip(nf.unpack(net, d), out, strict=True):
        assert np.linalg.norm(after.w_rec) == near(0.1, "float64", 30)
        assert same_bits(before.w_in, after.w_in)


def test_its_bias_is_told_by_its_name():
    batches = [case.batch for case in CASES]
    found = nf.clipping_bias(
        CASES[0].net, CASES[0].theta, batches, [nf.Clip("block", {"w_rec": 0.01, "w_in": None})], rng=0
    )
    assert list(found.rules) == ["block (w_rec 0.01, w_in none)"]
    with pytest.raises(ValueError, match="threshold is by block; expected one number, for one is looked for"):
        nf.matched_threshold(CASES[0].net, CASES[0].theta, batches, nf.Clip("block", {"w_rec": 0.01}))


# --------------------------------------------------------------------------------------------------------- the boundary


@pytest.mark.sim
@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ({"w_rc": 1.0}, "threshold has 'w_rc'; expected some of: w_in"), ({3: 1.0}, "threshold has 3; expected some"),
        ({"w_rec": -1.0}, r"threshold\['w_rec'\] is -1; expected a number of at least 0"),
        ({"w_rec": math.nan}, r"threshold\['w_rec'\] is NaN"), ({"w_rec": "big"}, r"threshold\['w_rec'\] is 'big'"),
        ({"w_rec": "zscore"}, r"threshold\['w_rec'\] is 'zscore'; expected a number.*follows the joint one"),
        ({"w_rec": nf.load_threshold("zscore")}, r"threshold\['w_rec'\] is .*follows the joint one"),
        ({"w_rec": None}, "expected a number for one block at least"), ({}, "expected a number for one block at least"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_thresholds_is_refused_as_the_clip_is_made(threshold, said):
    with pytest.raises((TypeError, ValueError), match=said):
        nf.Clip("block", threshold)


@pytest.mark.sim
@pytest.mark.parametrize("rule", ["norm", "normalize", "random", "smoothed", "layer"])
def test_a_rule_with_one_norm_over_all_blocks_refuses_a_mapping_by_name(rule):
    how = nf.Clip(rule, {"w_rec": 1.0})
    for call in (lambda: nf.clip(NET, D, how), lambda: trained(how)):
        with pytest.raises(ValueError, match=f"threshold is by block and the rule '{rule}' has one norm over all"):
            call()


@pytest.mark.sim
@pytest.mark.parametrize("rule", ["adagc", "spam", "error_feedback"])
def test_a_rule_that_remembers_refuses_a_mapping_by_name(rule):
    with pytest.raises(ValueError, match=f"threshold is by block and the rule '{rule}' remembers gradients"):
        trained(nf.Clip(rule, {"w_rec": 1.0}, "skip"))


@pytest.mark.sim
def test_a_single_clip_knows_no_schedule_and_each_replica_needs_its_own():
    with pytest.raises(TypeError, match=r"threshold\['w_rec'\] is .*a single clip knows no update"):
        nf.clip(NET, D, nf.Clip("block", {"w_rec": lambda update: 1.0}))
    for call in (lambda how: nf.clip(NET, D, how), trained):
        with pytest.raises(ValueError, match=r"threshold\['w_rec'\] has shape \(2,\); expected"):
            call(nf.Clip("block", {"w_rec": [1.0, 2.0]}))
    with pytest.raises(ValueError, match=r"threshold\['w_rec'\] is -1; .* at update 2"):
        trained(nf.Clip("block", {"w_rec": lambda update: 1.0 - update}))


@pytest.mark.sim
@pytest.mark.gpu
def test_the_card_refuses_it_by_name():
    for call in (lambda how: nf.clip(NET, D, how, backend="cuda"), lambda how: trained(how, backend="cuda")):
        with pytest.raises(NotImplementedError, match="threshold is by block; expected one number, as backend 'cuda'"):
            call(nf.Clip("block", {"w_rec": 1.0}))
