"""Claims about h-detach: which steps it draws, and what is left of the gradient."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, make_case, make_replicas
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow import counter

CARRYING = ("gru", "lstm")


def drawn(how, T, replica=0):
    """Return the steps at which h is detached, by the reference's random numbers."""
    words = [naive.draw(how.seed, counter.DETACH, replica, how.index, 0, t)[0] for t in range(1, T + 1)]
    return {t for t, word in enumerate(words, start=1) if naive.uniform(word) < how.probability}


def detach(case, how, **choices):
    return nf.gradient(case.net, case.theta, case.batch, h_detach=how, **choices)


def test_cells_that_carry_are_these():
    assert tuple(cell for cell in CELLS if nf.Network(cell, 1, 1, 1).cell_object.carries) == CARRYING


@pytest.mark.parametrize("cell", CARRYING)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_references_with_h_constant_at_the_steps_drawn(cell, dtype, kind):
    for when, probability, seed in (("last", 0.25, 0), ("ragged", 0.5, 3), ("all", 0.9, 2**40)):
        case = make_case(cell, "softmax", kind, when, 12, 9, 2, 5, 3, dtype, seed=70)
        how = nf.HDetach(probability, seed=seed, index=5)
        steps = drawn(how, 12)
        assert 0 < len(steps) < 12
        flow = naive.backward(case.params, cell, "softmax", case.plain, case.state.astype(float), detached=steps)
        out = detach(case, how, state=case.state)
        assert_close(out.loss, flow.loss, within(dtype, 12, case.terms))
        assert_close(out.d_theta, naive.pack(flow.d_params), within(dtype, 12, 4 * case.terms))
        plain = nf.gradient(case.net, case.theta, case.batch, state=case.state)
        assert np.linalg.norm(out.d_theta - plain.d_theta) > 1e-4 * np.linalg.norm(plain.d_theta)


@pytest.mark.sim
@pytest.mark.parametrize("cell", CARRYING)
def test_it_is_the_references_for_the_smallest_networks(cell):
    case = make_case(cell, "square", "tokens", "all", T=4, B=2, N=2, H=2, M=2, seed=71)
    how = nf.HDetach(0.5, seed=1)
    flow = naive.backward(case.params, cell, "square", case.plain, detached=drawn(how, 4))
    assert_close(detach(case, how).d_theta, naive.pack(flow.d_params), within("float64", 4, 100))


def test_it_is_what_autograd_says_of_a_detached_h(torch):
    """PyTorch's own lstm cell, h.detach() at the steps drawn."""
    case = make_case("lstm", "square", "dense", "all", T=8, B=9, N=3, H=5, M=2, seed=72)
    how = nf.HDetach(0.5, seed=4)
    cell, linear = torch.nn.LSTMCell(3, 5).double(), torch.nn.Linear(5, 2).double()
    weights = nf.to_torch(case.net, case.theta)
    names = {name.removesuffix("_l0"): torch.from_numpy(array) for name, array in weights.items()}
    cell.load_state_dict({name: names[name] for name in cell.state_dict()})
    linear.load_state_dict({name: names[name] for name in linear.state_dict()})
    inputs, targets, counts = (torch.from_numpy(part) for part in case.batch)
    h, c, steps = torch.zeros(9, 5).double(), torch.zeros(9, 5).double(), drawn(how, 8)
    loss = 0
    for t in range(1, 9):
        h, c = cell(inputs[t - 1], (h.detach() if t in steps else h, c))
        loss = loss + (counts[t - 1, :, None] * (linear(h) - targets[t - 1]) ** 2).sum()
    loss.backward()
    got = nf.to_torch(case.net, detach(case, how).d_theta)
    for name, p in (*cell.named_parameters(), *linear.named_parameters()):
        if name != "bias_hh":
            key = name if name in got else f"{name}_l0"
            assert_close(got[key], p.grad.numpy(), within("float64", 8, 100), name)


@pytest.mark.parametrize("cell", CARRYING)
def test_probability_0_changes_no_bit_and_1_leaves_only_what_goes_past_w_rec(cell):
    case = make_case(cell, "square", "dense", "all", T=6, B=9, N=2, H=5, M=2, seed=73)
    assert same_bits(detach(case, nf.HDetach(0.0)).d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)
    flow = naive.backward(case.params, cell, "square", case.plain, detached=range(1, 7))
    assert_close(detach(case, nf.HDetach(1.0)).d_theta, naive.pack(flow.d_params), within("float64", 6, 100))


def test_the_same_draws_for_the_same_seed_and_index_and_others_for_others():
    case = make_case("lstm", "square", "dense", "all", T=30, B=9, N=2, H=5, M=2, seed=74)
    one = detach(case, nf.HDetach(0.5, seed=1, index=2))
    assert same_bits(detach(case, nf.HDetach(0.5, seed=1, index=2)).d_theta, one.d_theta)
    for other in (nf.HDetach(0.5, seed=2, index=2), nf.HDetach(0.5, seed=1, index=3)):
        assert not np.array_equal(detach(case, other).d_theta, one.d_theta)


def test_replicas_have_draws_and_probabilities_of_their_own():
    net, theta, batch, _, cases = make_replicas("lstm", R=3, T=20, B=9, H=5, when="all")
    probability = np.array([0.0, 0.5, 0.5])
    out = nf.gradient(net, theta, batch, h_detach=nf.HDetach(probability, seed=8))
    for r, case in enumerate(cases):
        steps = drawn(nf.HDetach(probability[r], seed=8), 20, replica=r)
        flow = naive.backward(case.params, "lstm", net.loss, case.plain, detached=steps)
        assert_close(out.d_theta[r], naive.pack(flow.d_params), within("float64", 20, case.terms))


@pytest.mark.parametrize("cell", CARRYING)
def test_recomputing_changes_no_bit_and_a_workspace_forgets(cell):
    case = make_case(cell, "square", "tokens", "last", T=1300, B=1, N=2, H=5, M=2, seed=75)
    how, space = nf.HDetach(0.25), nf.workspace(case.net, case.batch)
    plain = detach(case, how, workspace=space)
    assert same_bits(detach(case, how, recompute_every=64).d_theta, plain.d_theta)
    without = nf.gradient(case.net, case.theta, case.batch, workspace=space)
    assert same_bits(without.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)


def test_training_draws_anew_at_every_update_by_its_own_seed():
    case = make_case("lstm", "square", "dense", "all", T=10, B=9, N=2, H=5, M=2, seed=76)
    recipe = nf.Recipe(lr=0.01, h_detach=nf.HDetach(0.5, seed=99), max_updates=4, evaluate_every=0)
    theta = case.theta.copy()
    for update in range(4):
        how = nf.HDetach(0.5, seed=7, index=update)
        theta -= 0.01 * nf.gradient(case.net, theta, case.batch, h_detach=how).d_theta
    run = nf.train(case.net, case.theta, lambda update: case.batch, recipe, seed=7)
    assert_close(run.theta, theta, within("float64", 20, 500))


def test_it_works_with_clips_and_with_regularizers_of_states_and_weights():
    case = make_case("lstm", "square", "dense", "all", T=6, B=9, N=2, H=5, M=2, seed=77)
    how = nf.HDetach(0.5)
    plain = detach(case, how).d_theta
    assert_close(detach(case, how, clip_example=np.inf).d_theta, plain, within("float64", 6, 100))
    assert_close(detach(case, how, clip_hidden=nf.HiddenClip(np.inf)).d_theta, plain, within("float64", 6, 100))
    out = detach(case, how, flow=nf.Flow("orthogonality", 2.0))
    slope = naive.regularizer_slope("orthogonality", case.theta, *case.sizes, case.plain)
    assert_close(out.d_theta - plain, 2 * slope, within("float64", 20, 500))
    assert np.linalg.norm(detach(case, how, flow=nf.Flow("norm_stabilizer", 2.0)).d_theta - plain) > 1e-3


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in CARRYING])
def test_a_cell_with_no_other_way_back_is_refused(cell):
    case = make_case(cell)
    with pytest.raises(ValueError, match=f"h_detach is given with cell '{cell}'"):
        detach(case, nf.HDetach(0.5))
    with pytest.raises(ValueError, match=f"h_detach is given with cell '{cell}'"):
        nf.train(case.net, case.theta, lambda update: case.batch, nf.Recipe(h_detach=nf.HDetach(0.5)))


def test_what_makes_no_sense_is_refused():
    case = make_case("lstm")
    for how, said in (
        (-0.1, "probability is -0.1"), (1.1, "probability is 1.1.*from 0 to 1"), (np.nan, "probability is NaN"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            nf.HDetach(how)
    with pytest.raises(ValueError, match="probability has shape"):
        detach(case, nf.HDetach(np.ones(2)))
    for fields, said in (
        ({"seed": -1}, "seed is -1"), ({"index": 2**32}, "index is 4294967296"),
        ({"probability": "x"}, "probability is 'x'"), ({"seed": 1.0}, "seed is 1.0"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=said):
            nf.HDetach(**{"probability": 0.5, **fields})
    with pytest.raises(TypeError, match="h_detach is a float"):
        detach(case, 0.5)
    with pytest.raises(ValueError, match="flow and h_detach are both given"):
        detach(case, nf.HDetach(0.5), flow=nf.Flow("norm", 1.0))
    recipe = nf.Recipe(h_detach=nf.HDetach(0.5), flow=nf.Flow("norm", 1.0))
    with pytest.raises(ValueError, match="flow and h_detach are both given"):
        nf.train(case.net, case.theta, lambda update: case.batch, recipe)
