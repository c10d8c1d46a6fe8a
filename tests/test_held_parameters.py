"""Claims about `Recipe(trainable=...)`: what is held stays, and everything that looks at a gradient sees what moves."""

import dataclasses

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, KINDS, OPTIMIZERS, make_case, make_replicas
from test_inside import share_of
from tolerance import assert_close, error, near, same_bits, within

import nbflow as nf
from nbflow.cpu import held
from nbflow.records import Optimizer

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
UPDATES = 5
CASES = [make_case("lstm", "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=40 + k) for k in range(UPDATES)]
NET, START = CASES[0].net, CASES[0].theta
MASK = np.random.default_rng(0).random(NET.size) < 0.6


def trained(trainable, cases=CASES, **choices):
    given = {"lr": 0.1, "max_updates": len(cases), "record_every": 1, "batch_size": 3, **choices}
    recipe = nf.Recipe(trainable=trainable, **{name: value for name, value in given.items() if name not in CALLED})
    named = {name: value for name, value in given.items() if name in CALLED}
    return nf.train(cases[0].net, cases[0].theta, lambda update: cases[update % len(cases)].batch, recipe, **named)


CALLED = ("backend", "checkpoint", "callbacks", "start_from")


@pytest.fixture(params=["spans", "mask"])
def loops(request, monkeypatch):
    """Take what is held by its spans, or by a mask, however many spans there are."""
    monkeypatch.setattr(held, "PER_SPAN", {"spans": 0, "mask": 10**9}[request.param])


def by_hand(optimizer, clip, mask=MASK, cases=CASES):
    """Return theta after every update, and the norms before the clip, in NumPy."""
    theta, state, path, norms = cases[0].theta.astype(np.float64), None, [], []
    for update, case in enumerate(cases):
        _, d = naive.gradient(theta, *case.sizes, case.net.loss, case.plain)
        d = np.where(mask, d, 0.0)
        norms.append(np.linalg.norm(d))
        d = naive.clip(clip.rule, d, clip.threshold, theta=theta, blocks=case.net.shapes).d_theta
        theta, state = naive.OPTIMIZERS[optimizer](theta, d, state, 0.1, update + 1)
        path.append(theta)
    return path, norms


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", ["norm", "block", "value"])
def test_five_updates_are_those_of_naive_training_whose_gradient_is_masked_before_the_clip(optimizer, rule):
    clip = nf.Clip(rule, 0.05)
    path, norms = by_hand(optimizer, clip)
    run = trained(MASK, optimizer=optimizer, clip=clip)
    assert_close(run.theta - START, path[-1] - START, 100 * within("float64", UPDATES, 30))
    assert run.history["norm"] == pytest.approx(norms, rel=within("float64", 30, 100))
    assert same_bits(run.theta[~MASK], START[~MASK])
    assert (run.theta[MASK] != START[MASK]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_holds_what_it_is_told(cell):
    cases = [make_case(cell, "softmax", "tokens", "ragged", T=4, B=3, N=4, H=3, M=3, seed=k) for k in range(UPDATES)]
    mask = np.random.default_rng(1).random(cases[0].net.size) < 0.5
    path, norms = by_hand("momentum", nf.Clip("norm", 0.3), mask, cases)
    run = trained(mask, cases, optimizer="momentum", clip=nf.Clip("norm", 0.3))
    assert_close(run.theta, path[-1], 100 * within("float64", UPDATES, 30))
    assert run.history["norm"] == pytest.approx(norms, rel=within("float64", 30, 100))


def test_five_updates_are_those_of_torch_with_gradients_masked_before_clip_grad_norm(torch):
    net = nf.Network("tanh", 2, 3, 2, loss="square", dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0)
    rng = np.random.default_rng(2)
    batches = [nf.Batch(rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2)), np.ones((4, 3))) for _ in range(5)]
    mask = rng.random(net.size) < 0.5
    parts = [torch.tensor(part, requires_grad=True) for part in nf.unpack(net, theta) if part.size]
    masks = [torch.tensor(part) for part in _unpacked(net, mask) if part.size]
    adam = torch.optim.Adam(parts, lr=0.1)
    for batch in batches:
        w_in, w_rec, bias, w_out, b_out = parts
        h, loss = torch.zeros(3, 3, dtype=torch.float64), 0.0
        for x, target in zip(torch.tensor(batch.inputs), torch.tensor(batch.targets), strict=True):
            h = torch.tanh(x @ w_in[:, 0] + h @ w_rec[:, 0] + bias[0])
            loss = loss + ((h @ w_out + b_out - target) ** 2).sum()
        adam.zero_grad()
        loss.backward()
        for one, mine in zip(parts, masks, strict=True):
            one.grad *= mine
        norm = torch.sqrt(sum((one.grad**2).sum() for one in parts))
        for one in parts:
            one.grad *= min(1.0, float(0.5 / norm))
        adam.step()
    recipe = nf.Recipe("adam", lr=0.1, clip=nf.Clip("norm", 0.5), max_updates=5, trainable=mask)
    run = nf.train(net, theta, batches.__getitem__, recipe)
    wanted = np.concatenate([one.detach().numpy().ravel() for one in parts])
    assert_close(run.theta - theta, wanted - theta, 100 * within("float64", UPDATES, 30))


def _unpacked(net, mask):
    """Return a mask by blocks."""
    parts, start = [], 0
    for shape in net.shapes.values():
        size = int(np.prod(shape))
        parts.append(mask[start : start + size].reshape(shape))
        start += size
    return nf.Params(*parts)


@pytest.mark.parametrize("seed", range(5))
def test_spans_are_where_a_mask_is_true(seed):
    mask = np.random.default_rng(seed).random((3, 40)) < (0.0, 0.1, 0.5, 0.9, 1.0)[seed]
    found = np.zeros_like(mask)
    for r, first, stop in held.spans_of(mask):
        assert not found[r, first:stop].any()
        assert stop == 40 or not mask[r, stop]
        assert first == 0 or not mask[r, int(first) - 1]
        found[r, first:stop] = True
    assert (found == mask).all()


@pytest.mark.parametrize(("block", "spans"), [(True, True), (False, False)], ids=["block", "scattered"])
def test_spans_are_taken_where_they_are_few(block, spans):
    mask = np.arange(1000)[None] < 400 if block else np.random.default_rng(0).random((1, 1000)) < 0.4
    assert (held.holder(mask, np.float32).func is held.build_hold_spans(np.float32)) is spans
    d = np.full((1, 1000), np.nan, np.float32)
    held.holder(mask, np.float32)(d)
    assert ((d == 0) == mask).all()


# ----------------------------------------------------------------------------------------------------------- its forms


@pytest.mark.sim
def test_a_mask_a_dict_of_blocks_and_params_are_one_and_the_same():
    blocks = _unpacked(NET, MASK)
    whole = trained(MASK).theta
    assert same_bits(trained(blocks._asdict()).theta, whole)
    assert same_bits(trained(blocks).theta, whole)
    assert same_bits(trained(MASK[None]).theta, whole)
    only = nf.unpack(NET, trained({"w_rec": False, "b_out": np.array([True, False])}).theta)
    first = nf.unpack(NET, START)
    assert same_bits(only.w_rec, first.w_rec)
    assert (only.b_out != first.b_out).tolist() == [True, False]
    assert all((getattr(only, name) != getattr(first, name)).all() for name in ("w_in", "bias", "w_out"))


@pytest.mark.sim
@pytest.mark.parametrize("everything", [np.ones(NET.size, bool), {}, {"w_rec": True}], ids=["mask", "none", "block"])
def test_what_holds_nothing_changes_no_bit(everything):
    assert same_bits(trained(everything).theta, trained(None).theta)


@pytest.mark.sim
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_replica_has_its_mask_and_trains_as_it_would_alone(backend):
    net, theta, batch, _, _ = make_replicas("tanh", R=3, T=3, B=2, H=3)
    masks = np.random.default_rng(3).random(theta.shape) < 0.5
    recipe = nf.Recipe("momentum", lr=0.1, max_updates=3, clip=nf.Clip("norm", 0.1), trainable=masks)
    many = nf.train(net, theta, lambda update: batch, recipe, backend=backend).theta
    for r in range(3):
        alone = dataclasses.replace(recipe, trainable=masks[r])
        one = nf.Batch(*(part[r] for part in batch))
        assert same_bits(many[r], nf.train(net, theta[r], lambda update, one=one: one, alone, backend=backend).theta)
        assert same_bits(many[r][~masks[r]], theta[r][~masks[r]])
    blocks = {"w_in": masks[:, : net.n_in * net.n_hidden].reshape(3, *net.shapes["w_in"])}
    got = nf.train(net, theta, lambda update: batch, dataclasses.replace(recipe, trainable=blocks), backend=backend)
    same = got.theta == theta
    assert same[:, : net.n_in * net.n_hidden][~blocks["w_in"].reshape(3, -1)].all()


# --------------------------------------------------------------------------------- what an update does to what is held


@nf.unit
def decay(theta, d, slots, lr, settings, n):
    return theta - lr * (d + settings[0] * theta), (slots[0] + d, n)


DECAY = Optimizer(slots=("sum", "n"), update=decay, settings={"decay": 0.5})


@pytest.mark.sim
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(
    ("optimizer", "backend"),
    [(name, "cpu") for name in (*OPTIMIZERS, DECAY)]
    + [pytest.param(name, "cuda", marks=pytest.mark.gpu) for name in ("adam", DECAY)],
    ids=lambda one: one if isinstance(one, str) else "decay",
)
def test_no_optimizer_moves_what_is_held_nor_its_slots_not_even_by_weight_decay(optimizer, backend, tmp_path):
    path = tmp_path / "run.npz"
    run = trained(MASK, optimizer=optimizer, backend=backend, checkpoint=path)
    assert same_bits(run.theta[~MASK], START[~MASK])
    # A branch that holds others leaves their slots, which are not 0, and what they would have moved.
    other = trained(~MASK, optimizer=optimizer, backend=backend, start_from=path, max_updates=2 * UPDATES)
    assert same_bits(other.theta[MASK], run.theta[MASK])
    assert (other.theta[~MASK] != run.theta[~MASK]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.sim
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["random", "skip", "zero", "shrink"])
def test_no_policy_moves_what_is_held_and_a_random_step_has_its_length_all_the_same(policy, backend):
    targets = CASES[0].batch.targets.copy()
    targets[:2] = 1e200
    broken = nf.Batch(CASES[0].batch.inputs, targets, 1e200 * CASES[0].batch.weights)
    recipe = nf.Recipe(lr=1.0, clip=nf.Clip("norm", 0.3, policy), max_updates=1, trainable=MASK)
    with np.errstate(all="ignore"):
        run = nf.train(NET, START, lambda update: broken, recipe, backend=backend)
    assert run.history["nonfinite"] == [1]
    assert same_bits(run.theta[~MASK], START[~MASK])
    moved = run.theta - START
    if policy == "random":
        assert np.linalg.norm(moved) == near(0.3, "float64", 100)
        assert (moved[MASK] != 0).all()
    if policy == "shrink":
        w_rec = nf.unpack(NET, np.where(MASK, START, 0.0)).w_rec
        assert_close(nf.unpack(NET, moved).w_rec, -0.02 * w_rec, within("float64", 10))


@pytest.mark.sim
@pytest.mark.parametrize("backend", BACKENDS)
def test_rule_random_steps_among_what_moves(backend):
    run = trained(MASK, lr=1.0, clip=nf.Clip("random", 1e-3), max_updates=1, backend=backend)
    moved = run.theta - START
    assert np.linalg.norm(moved) == near(1e-3, "float64", 1e4)  # a difference of numbers near 1
    assert ((moved != 0) == MASK).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.sim
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_that_is_not_finite_where_it_is_held_counts_for_nothing(backend):
    """The error of 1e10 times the input of 1e300 is the gradient of w_in; all others are small."""
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype="float64")
    theta = nf.pack(net, nf.unpack(net, np.zeros(net.size))._replace(w_out=np.ones((1, 1))))
    batch = nf.Batch(np.full((1, 1, 1), 1e300), np.full((1, 1, 1), -1e10), np.ones((1, 1)))
    recipe = nf.Recipe(lr=1e-3, max_updates=1, clip=nf.Clip("norm", 1.0, "raise"))
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="1 of w_in"):
        nf.train(net, theta, lambda update: batch, recipe, backend=backend)
    held = dataclasses.replace(recipe, trainable={"w_in": False})
    run = nf.train(net, theta, lambda update: batch, held, backend=backend)
    assert run.history["nonfinite"] == [0]
    assert run.history["norm"] == [near(np.hypot(2e10, 2e10), "float64", 100)]
    assert run.theta[0] == 0


@pytest.mark.sim
@pytest.mark.parametrize("how", ["percentile", "zscore"])
def test_a_threshold_that_follows_sees_the_norms_of_what_moves(how):
    run = trained(MASK, clip=nf.Clip("norm", nf.load_threshold(how)))
    seen = naive.THRESHOLDS[how](run.history["norm"])
    assert run.history["threshold"][-1] == near(seen, "float64", 100)
    assert run.history["norm"][0] == near(np.linalg.norm(naive_first()[MASK]), "float64", 100)
    found = nf.calibrate_threshold(
        NET, START, lambda update: CASES[update].batch, nf.Recipe(lr=0.1, trainable=MASK), updates=UPDATES
    )
    assert found.norms.tolist() == trained(MASK).history["norm"]


def naive_first():
    return naive.gradient(START.astype(np.float64), *CASES[0].sizes, NET.loss, CASES[0].plain)[1]


# ----------------------------------------------------------------------------------------------------- runs that go on


@pytest.mark.sim
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_goes_on_to_the_same_bits_and_belongs_to_its_mask(backend, tmp_path):
    path = tmp_path / "run.npz"
    stopped = [lambda run: run.updates == 2]
    choices = {"optimizer": "adam", "clip": nf.Clip("norm", 0.1), "backend": backend}
    trained(MASK, checkpoint=path, callbacks=stopped, **choices)
    assert same_bits(trained(MASK, checkpoint=path, **choices).theta, trained(MASK, **choices).theta)
    for other in (None, ~MASK, {"w_rec": False}):
        with pytest.raises(ValueError, match="another training: trainable is"):
            trained(other, checkpoint=path, **choices)


@pytest.mark.sim
def test_updates_of_a_loop_of_ones_own_hold_the_same():
    recipe = nf.Recipe(lr=0.1, clip=nf.Clip("norm", 0.05), trainable=MASK)
    update = nf.updater(NET, START, None, recipe)
    for case in CASES:
        update(case.batch)
    assert same_bits(update.theta, trained(MASK, clip=nf.Clip("norm", 0.05)).theta)


# --------------------------------------------------------------------------------------------------------- the boundary


@pytest.mark.sim
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("w_rec", r"trainable is 'w_rec'; expected booleans like theta, or a dict"),
        (True, "trainable is True; expected booleans"), ([True, False], "trainable is True; expected booleans"),
        (MASK.astype(float), "trainable is an array of float64; expected an array of booleans like theta"),
        (MASK.astype(int), "trainable is an array of int64.*mask != 0"),
        ({"w_rc": False}, "trainable has 'w_rc'; expected some of: w_in, .*Write w_rec"),
        ({3: False}, "trainable has 3; expected some of"), ({"w_rec": 0}, r"trainable\['w_rec'\] is 0; expected True"),
        ({"w_rec": None}, r"trainable\['w_rec'\] is None"), ({"w_rec": [True]}, r"trainable\['w_rec'\] is \[True\]"),
        ({"w_rec": np.ones((3, 4, 3))}, r"trainable\['w_rec'\] is an array of float64"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused_as_the_recipe_is_made(given, said):
    with pytest.raises((TypeError, ValueError), match=said):
        nf.Recipe(trainable=given)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.ones(3, bool), r"trainable has shape \(3,\); expected \(\d+,\), or \(1, \d+\) for 1 replicas"),
        (np.ones((2, NET.size), bool), r"trainable has shape \(2, "),
        ({"w_rec": np.ones((3, 3), bool)}, r"trainable\['w_rec'\] has shape \(3, 3\); expected \(3, 4, 3\), or"),
        (np.zeros(NET.size, bool), "trainable holds every parameter; expected one"),
    ],
)
def test_a_mask_of_another_network_is_refused_before_the_first_update(given, said):
    with pytest.raises(ValueError, match=said):
        trained(given)


# ---------------------------------------------------------------------------------------------------- clips by example


def clips_of(size, threshold):
    return {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}


def groups_of(case, size, mask):
    """Return the masked gradient of B / size times the loss of each group of examples, and its norm."""
    B = case.batch.weights.shape[1]
    groups = [B / size * np.where(mask, share_of(case, [*range(k, k + size)]), 0.0) for k in range(0, B, size)]
    return groups, np.array([np.linalg.norm(g) for g in groups])


def by_hand_of_groups(size, threshold, mask, cases):
    """Return theta after updates of sgd with the mean of clipped, masked gradients of groups, and how many it clips."""
    theta, clipped = cases[0].theta.astype(np.float64), []
    for case in cases:
        groups, norms = groups_of(case._replace(theta=theta), size, mask)
        factors = np.minimum(1.0, threshold / np.maximum(norms, 1e-300))
        theta = theta - 0.1 * np.mean([f * g for f, g in zip(factors, groups, strict=True)], axis=0)
        clipped.append(float((norms > threshold).mean()))
    return theta, clipped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_norm_of_an_example_is_that_of_what_moves(cell, size, kind):
    cases = [make_case(cell, "softmax", kind, "ragged", T=4, B=9, N=4, H=3, M=3, seed=k) for k in range(UPDATES)]
    mask = np.random.default_rng(5).random(cases[0].net.size) < 0.5
    _, norms = groups_of(cases[0], size, mask)
    threshold = 0.9 * float(np.median(norms[norms > 0]))
    wanted, clipped = by_hand_of_groups(size, threshold, mask, cases)
    assert 0 < sum(clipped) < UPDATES, "some are clipped, and some are not"
    run = trained(mask, cases, batch_size=9, **clips_of(size, threshold))
    assert_close(run.theta - cases[0].theta, wanted - cases[0].theta, 100 * within("float64", UPDATES, 60))
    assert run.history["clipped_examples" if size == 1 else "clipped_groups"] == clipped
    assert same_bits(run.theta[~mask], cases[0].theta[~mask])
    everything, _ = by_hand_of_groups(size, threshold, True, cases)
    assert error(everything[mask], wanted[mask]) > within("float64", UPDATES, 60), "the mask is seen by the norms"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_examples_masked_before_they_are_measured_are_autograds_one_by_one(torch, cell, kind):
    case = make_case(cell, "softmax", kind, "ragged", T=5, B=9, H=5, seed=12)
    mask = np.random.default_rng(6).random(case.net.size) < 0.5
    case = case._replace(state=np.zeros_like(case.state))
    p, shares = autograd.losses_of_sequences(torch, case, kind)
    gradients = [np.where(mask, 9 * autograd.gradient(torch, p, share), 0.0) for share in shares]
    norms = np.array([np.linalg.norm(g) for g in gradients])
    threshold = np.median(norms)
    mean = np.mean([g * min(1.0, threshold / max(n, 1e-300)) for g, n in zip(gradients, norms, strict=True)], axis=0)
    run = trained(mask, [case], lr=1.0, clip_example=threshold)
    assert_close(run.theta - case.theta, -mean, 10 * within("float64", 5, case.terms))
    assert run.history["norm"] == [near(float(np.linalg.norm(mean)), "float64", 100)]


@pytest.mark.sim
@pytest.mark.parametrize("size", [1, 3])
def test_clips_by_example_of_what_holds_nothing_have_the_same_bits(size):
    clip = clips_of(size, 0.2)
    wanted = trained(None, **clip).theta
    assert same_bits(trained(np.ones(NET.size, bool), **clip).theta, wanted)
    assert not same_bits(trained(None).theta, wanted)
    # Beside a replica that holds some, one that holds nothing goes through the kernels of those that do.
    theta, masks = np.stack([START, START]), np.stack([np.ones_like(MASK), MASK])
    recipe = nf.Recipe(lr=0.1, max_updates=UPDATES, trainable=masks, **clip)
    both = nf.train(NET, theta, lambda k: nf.Batch(*(np.stack([p, p]) for p in CASES[k].batch)), recipe)
    assert same_bits(both.theta[0], wanted)
    assert same_bits(both.theta[1], trained(MASK, **clip).theta)


@pytest.mark.sim
def test_an_example_whose_gradient_is_not_finite_where_it_is_held_is_not_left_out():
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype="float64")
    theta = nf.pack(net, nf.unpack(net, np.zeros(net.size))._replace(w_out=np.ones((1, 1))))
    inputs, targets = np.array([[[1.0], [1e300]]]), np.array([[[1.0], [-1e10]]])
    batch = nf.Batch(inputs, targets, np.full((1, 2), 0.5))
    recipe = nf.Recipe(lr=1.0, max_updates=1, clip_example=nf.ExampleClip(1.0, "skip"))
    with np.errstate(all="ignore"):
        free = nf.train(net, theta, lambda update: batch, recipe)
        held = nf.train(net, theta, lambda update: batch, dataclasses.replace(recipe, trainable={"w_in": False}))
        one = nf.Batch(inputs[:, 1:], targets[:, 1:], np.ones((1, 1)))
        alone = nf.train(net, theta, lambda update: one, dataclasses.replace(recipe, trainable={"w_in": False}))
    assert [run.history["left_out"] for run in (free, held)] == [[1], [0]]
    # d = 2 (y - t) (bias, b_out): -2 and 2e10 each, both clipped to length 1.
    assert held.theta[0] == theta[0]
    assert np.abs(held.theta - theta).max() == near(0.0, "float64", size=1.0)
    assert np.linalg.norm(alone.theta - theta) == near(1.0)


@pytest.mark.sim
def test_a_threshold_that_follows_the_norms_of_examples_sees_those_of_what_moves():
    how = nf.load_threshold("percentile", percent=50.0, window=16, first=0.3)
    run = trained(MASK, clip_example=how)
    norms = []
    for update in range(UPDATES):
        theta = trained(MASK, clip_example=how, max_updates=update).theta if update else START
        now = CASES[update]._replace(theta=theta)
        norms += [np.linalg.norm(3 * np.where(MASK, share_of(now, [b]), 0.0)) for b in range(3)]
        if update < UPDATES - 1:
            wanted = naive.THRESHOLDS["percentile"](norms, percent=50.0, window=16, first=0.3)
            assert run.history["example_threshold"][update + 1] == near(wanted, "float64", 100)


@pytest.mark.sim
@pytest.mark.gpu
def test_the_card_refuses_what_it_has_not_by_name():
    with pytest.raises(NotImplementedError, match="trainable beside a clip by example is"):
        trained(MASK, clip_example=1.0, backend="cuda")


# --------------------------------------------------------------------------------------------------------------- stacks


def stack():
    layers = [
        nf.Network(cell, n, h, 2, loss="square", dtype="float64") for cell, n, h in (("gru", 2, 3), ("tanh", 3, 4))
    ]
    return nf.Stack(layers)


def stacked(**choices):
    net = stack()
    theta = np.random.default_rng(4).normal(size=net.size) / 2
    recipe = nf.Recipe("adam", lr=0.1, max_updates=3, clip=nf.Clip("norm", 0.1), **choices)
    return net, theta, nf.train(net, theta, lambda update: CASES[update].batch, recipe).theta


def test_a_record_of_blocks_is_of_every_layer_of_a_stack_and_a_list_has_one_for_each():
    net, theta, every = stacked(trainable={"w_rec": False})
    first, then = nf.unpack(net, theta), nf.unpack(net, every)
    for before, after in zip(first, then, strict=True):
        assert same_bits(before.w_rec, after.w_rec)
        assert (before.w_in != after.w_in).all()
    _, _, one = stacked(trainable=[{}, dict.fromkeys(nf.Params._fields, False)])
    low, high = nf.unpack(net, one)
    assert all(same_bits(a, b) for a, b in zip(high, first[1], strict=True))
    assert (low.w_rec != first[0].w_rec).all()
    mask = np.concatenate([np.ones(net.layers[0].size, bool), np.zeros(net.layers[1].size, bool)])
    assert same_bits(stacked(trainable=mask)[2], one)
    with pytest.raises(ValueError, match="trainable has 1 records of blocks; expected 2"):
        stacked(trainable=[{}])


def test_the_norm_of_an_example_of_a_stack_is_that_of_what_moves_in_all_layers():
    net = stack()
    mask = np.random.default_rng(7).random(net.size) < 0.5
    theta = np.random.default_rng(4).normal(size=net.size) / 2
    batch, B, groups = CASES[0].batch, CASES[0].batch.weights.shape[1], []
    for b in range(B):
        own = np.zeros_like(batch.weights)
        own[:, b] = batch.weights[:, b]
        groups.append(np.where(mask, B * nf.gradient(net, theta, batch._replace(weights=own)).d_theta, 0.0))
    threshold = float(np.median([np.linalg.norm(g) for g in groups]))
    mean = np.mean([g * min(1.0, threshold / max(np.linalg.norm(g), 1e-300)) for g in groups], axis=0)
    recipe = nf.Recipe(lr=1.0, max_updates=1, trainable=mask, clip_example=threshold)
    run = nf.train(net, theta, lambda update: batch, recipe)
    assert_close(run.theta - theta, -mean, 10 * within("float64", 5, 60))
    everything = dataclasses.replace(recipe, trainable=np.ones(net.size, bool))
    free = nf.train(net, theta, lambda update: batch, dataclasses.replace(recipe, trainable=None))
    assert same_bits(nf.train(net, theta, lambda update: batch, everything).theta, free.theta)
