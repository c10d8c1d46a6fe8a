"""Claims about tasks: sequences by counter, what they hold, and how hard they are for those who know nothing."""

from __future__ import annotations

import functools

import naive
import numpy as np
import pytest
from cases import DTYPES, TASKS
from scipy import stats
from tolerance import near

import nbflow as nf
from nbflow.data.sampler import STREAMS

SEEDS = (0, 1, 123456789, 2**32 - 1, 2**32, 2**40 + 12345, 2**63 - 1)
LENGTHS = (10, 11, 13, 19, 20, 29, 37, 50, 101)
FALSE_ALARM = 1e-6  # of each statistical test; their seeds are fixed, so they pass always or never


@functools.cache
def large(task, length=100, batch_size=20_000, seed=2**33 + 5):
    return nf.load_task(task).sample(seed=seed, index=3, batch_size=batch_size, length=length, dtype="float64")


def assert_sampled(task, got, seed, purpose, replica, index, length, dtype="float64"):
    B = got.weights.shape[1]
    inputs, targets, weights = naive.TASKS[task](seed, purpose, replica, index, B, length)
    for name, part, wanted in (("inputs", got.inputs, inputs), ("targets", got.targets, targets)):
        assert part.shape == wanted.shape, name
        assert np.array_equal(part, wanted.astype(part.dtype)), name
    heard = np.count_nonzero(weights, axis=0)
    assert (heard == heard[0]).all()
    scalar = np.dtype(dtype).type
    assert np.array_equal(got.weights, (weights != 0) * (scalar(1) / scalar(B * heard[0])))
    assert np.allclose(got.weights, weights, rtol=4 * np.finfo(dtype).eps, atol=0)


@pytest.mark.sim
@pytest.mark.parametrize("task", TASKS)
def test_a_small_batch_is_the_references_to_the_bit(task):
    got = nf.load_task(task).sample(seed=2**40 + 1, index=2, batch_size=2, length=11, replicas=2, dtype="float64")
    for r in range(2):
        assert_sampled(task, nf.Batch(*(part[r] for part in got)), 2**40 + 1, 0, r, 2, 11)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stream", STREAMS)
def test_every_batch_is_the_references_to_the_bit(task, stream):
    for k, seed in enumerate(SEEDS):
        for length in LENGTHS[k % 3 :: 3]:
            for index, dtype in ((0, "float64"), (1, "float32"), (2**32 - 1, "float64")):
                got = nf.load_task(task).sample(
                    seed=seed, index=index, batch_size=3, length=length, replicas=2, stream=stream, dtype=dtype
                )
                for r in range(2):
                    one = nf.Batch(*(part[r] for part in got))
                    assert_sampled(task, one, seed, STREAMS[stream], r, index, length, dtype)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_replica_is_the_same_among_any_number(task, dtype):
    sample = functools.partial(nf.load_task(task).sample, seed=9, index=4, batch_size=5, length=23, dtype=dtype)
    many = sample(replicas=7)
    for count in (1, 2, 6):
        for few, all_of_them in zip(sample(replicas=count), many, strict=True):
            assert np.array_equal(few, all_of_them[:count])
    for alone, all_of_them in zip(sample(), many, strict=True):
        assert np.array_equal(alone, all_of_them[0])
    assert not np.array_equal(many.inputs[0], many.inputs[1])


@pytest.mark.parametrize("task", TASKS)
def test_seed_index_replica_and_stream_each_make_other_sequences(task):
    sample = functools.partial(nf.load_task(task).sample, batch_size=5, length=40)
    batches = [sample(seed=0, index=0), sample(seed=1, index=0), sample(seed=2**32, index=0), sample(seed=0, index=1),
               sample(seed=0, index=0, stream="evaluation")]  # fmt: skip
    batches.append(nf.Batch(*(part[1] for part in sample(seed=0, index=0, replicas=2))))
    for i, one in enumerate(batches):
        for other in batches[:i]:
            assert not np.array_equal(one.inputs, other.inputs)
        columns = np.unique(one.inputs.reshape(len(one.inputs), 5, -1).swapaxes(0, 1).reshape(5, -1), axis=0)
        assert len(columns) > 1 if task == "memorization_5bit" else len(columns) == 5  # of 32 some are alike


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_begins_as_a_smaller_one(task):
    few, many = (nf.load_task(task).sample(seed=5, index=0, batch_size=B, length=31) for B in (3, 8))
    assert np.array_equal(many.inputs[:, :3], few.inputs)
    assert np.array_equal(many.targets[:, :3], few.targets)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weights_of_a_batch_add_up_to_1(task, dtype):
    for B in (1, 3, 20):
        batch = nf.load_task(task).sample(seed=5, index=0, batch_size=B, length=31, dtype=dtype)
        assert batch.weights.dtype == dtype
        assert np.allclose(batch.weights.sum(axis=0), 1 / B, rtol=4 * len(batch.weights) * np.finfo(dtype).eps)
        assert len(np.unique(batch.weights[batch.weights != 0])) == 1


# ------------------------------------------------------------------------------------------------------ temporal order


@pytest.mark.parametrize("length", [10, 11, 19, 25, 100])
def test_temporal_order_has_its_two_symbols_where_they_belong(length):
    batch = large("temporal_order", length, 4000)
    L = length
    symbol = batch.inputs < 2
    assert (symbol.sum(axis=0) == 2).all()
    assert ((batch.inputs >= 0) & (batch.inputs < 6)).all()
    columns = np.arange(4000)
    first, second = symbol.argmax(axis=0), L - 1 - symbol[::-1].argmax(axis=0)
    assert set(first) == set(range(L // 10, 2 * L // 10))
    assert set(second) == set(range(5 * L // 10, 6 * L // 10))
    v0, v1 = batch.inputs[first, columns], batch.inputs[second, columns]
    assert np.array_equal(batch.targets[-1], v0 + 2 * v1)
    assert not batch.targets[:-1].any()
    assert np.array_equal(batch.weights != 0, np.arange(L)[:, None].repeat(4000, axis=1) == L - 1)


def test_temporal_order_draws_classes_positions_and_distractors_uniformly():
    batch = large("temporal_order")
    symbol = batch.inputs < 2
    first, second = symbol.argmax(axis=0) - 10, 99 - symbol[::-1].argmax(axis=0) - 50
    counts = [np.bincount(batch.targets[-1], minlength=4), np.bincount(first, minlength=10),
              np.bincount(second, minlength=10), np.bincount(batch.inputs[~symbol] - 2, minlength=4),
              np.bincount(4 * (10 * first + second) + batch.targets[-1], minlength=400)]  # fmt: skip
    for count in counts:
        assert stats.chisquare(count).pvalue > FALSE_ALARM


def test_who_knows_nothing_is_wrong_at_temporal_order_three_times_out_of_four():
    batch, task = large("temporal_order"), nf.load_task("temporal_order")
    for answer in range(4):
        y = np.broadcast_to(np.eye(4)[answer], (*batch.weights.shape, 4))
        wrong = int(task.wrong(y, batch).sum())
        assert stats.binomtest(wrong, 20_000, 0.75).pvalue > FALSE_ALARM


@pytest.mark.parametrize("length", [10, 11, 25])
def test_symbols_that_stand_anywhere_stand_at_every_pair_of_steps_equally_often(length):
    batch = large("temporal_order_anywhere", length)
    L, columns = length, np.arange(20_000)
    symbol = batch.inputs < 2
    assert (symbol.sum(axis=0) == 2).all()
    assert ((batch.inputs >= 0) & (batch.inputs < 6)).all()
    first, second = symbol.argmax(axis=0), L - 1 - symbol[::-1].argmax(axis=0)
    pairs = np.bincount(L * first + second, minlength=L * L).reshape(L, L)
    assert not np.tril(pairs).any()
    assert stats.chisquare(pairs[np.triu_indices(L, 1)]).pvalue > FALSE_ALARM
    v0, v1 = batch.inputs[first, columns], batch.inputs[second, columns]
    assert np.array_equal(batch.targets[-1], v0 + 2 * v1)
    assert stats.chisquare(np.bincount(batch.targets[-1], minlength=4)).pvalue > FALSE_ALARM
    assert stats.chisquare(np.bincount(batch.inputs[~symbol] - 2, minlength=4)).pvalue > FALSE_ALARM
    assert not batch.targets[:-1].any()
    assert np.array_equal(np.nonzero(batch.weights.any(axis=1))[0], [L - 1])


@pytest.mark.parametrize("length", [10, 11, 19, 25, 100])
def test_temporal_order_of_three_has_its_symbols_where_they_belong(length):
    batch = large("temporal_order_3bit", length, 4000)
    L = length
    assert ((batch.inputs >= 0) & (batch.inputs < 6)).all()
    assert ((batch.inputs < 2).sum(axis=0) == 3).all()
    place, column = np.nonzero((batch.inputs < 2).T)[::-1]  # sequence by sequence, early to late
    first, second, third = place.reshape(4000, 3).T
    for found, tenth in ((first, 1), (second, 3), (third, 6)):
        assert set(found) == set(range(tenth * L // 10, (tenth + 1) * L // 10))
    v0, v1, v2 = batch.inputs[place, column].reshape(4000, 3).T
    assert np.array_equal(batch.targets[-1], v0 + 2 * v1 + 4 * v2)
    assert np.array_equal(np.nonzero(batch.weights.any(axis=1))[0], [L - 1])


def test_temporal_order_of_three_draws_classes_positions_and_distractors_uniformly():
    batch = large("temporal_order_3bit")
    symbol = batch.inputs < 2
    first, second, third = (np.nonzero(symbol.T)[1].reshape(-1, 3) - [10, 30, 60]).T
    counts = [np.bincount(batch.targets[-1], minlength=8), np.bincount(10 * first + second, minlength=100),
              np.bincount(10 * second + third, minlength=100), np.bincount(8 * third + batch.targets[-1], minlength=80),
              np.bincount(batch.inputs[~symbol] - 2, minlength=4)]  # fmt: skip
    for count in counts:
        assert stats.chisquare(count).pvalue > FALSE_ALARM


# --------------------------------------------------------------------------------------------------------- permutation


@pytest.mark.parametrize("length", [10, 11, 100])
def test_what_follows_a_permutation_is_its_first_symbol(length):
    batch = large("permutation", length, 4000)
    assert np.array_equal(batch.targets[-1], batch.inputs[0])
    assert np.array_equal(np.nonzero(batch.weights.any(axis=1))[0], [length - 1])
    assert set(batch.inputs[0]) == {0, 1}
    assert set(batch.inputs[1:].ravel()) == set(range(2, 100))


def test_permutation_draws_its_symbols_uniformly():
    batch = large("permutation")
    first, rest = batch.inputs[0], batch.inputs[1:] - 2
    counts = [np.bincount(first, minlength=2), np.bincount(rest.ravel(), minlength=98),
              np.bincount(98 * first + rest[-1], minlength=196)]  # fmt: skip
    for count in counts:
        assert stats.chisquare(count).pvalue > FALSE_ALARM


# -------------------------------------------------------------------------------------------------------------- recall

# Symbols, their values, the blanks before the cue at length L, and the steps from the cue to the answer.
RECALL = {
    "memorization": (10, 5, lambda L: {L}, 0), "memorization_5bit": (5, 2, lambda L: {L}, 0),
    "copy": (10, 8, lambda L: {L - 1}, 1), "delayed_recall": (10, 8, lambda L: set(range(L)), 1),
}  # fmt: skip


@pytest.mark.parametrize("task", RECALL)
@pytest.mark.parametrize("length", [10, 11, 37])
def test_recall_asks_for_the_symbols_when_the_cue_comes_and_for_blanks_before_and_after(task, length):
    count, values, delays, pause = RECALL[task]
    batch = large(task, length, 2000)
    T, columns = length + 2 * count, np.arange(2000)
    assert batch.inputs.shape == batch.targets.shape == (T, 2000)
    assert (batch.weights != 0).all()
    symbols, rest = batch.inputs[:count], batch.inputs[count:]
    assert set(symbols.ravel()) == set(range(values))
    assert set(rest.ravel()) == {values, values + 1}
    assert ((rest == values + 1).sum(axis=0) == 1).all()
    delay = (rest == values + 1).argmax(axis=0)
    assert set(delay) == delays(length)
    start = count + delay + pause
    assert np.array_equal(batch.targets[start + np.arange(count)[:, None], columns], symbols)
    assert ((batch.targets == values).sum(axis=0) == T - count).all()


@pytest.mark.parametrize("task", RECALL)
def test_recall_draws_its_symbols_and_delays_uniformly(task):
    count, values, delays, _ = RECALL[task]
    batch = large(task)
    for k in range(count):
        both = batch.inputs[k] + values * batch.inputs[(k + 1) % count]
        assert stats.chisquare(np.bincount(both, minlength=values**2)).pvalue > FALSE_ALARM
    if len(delays(100)) > 1:
        delay = (batch.inputs[count:] == values + 1).argmax(axis=0)
        assert stats.chisquare(np.bincount(8 * delay + batch.inputs[0], minlength=800)).pvalue > FALSE_ALARM


def test_copy_is_the_longest_delayed_recall():
    batch, copy = large("delayed_recall", 10, 2000), large("copy", 10, 2000)
    longest = (batch.inputs == 9).argmax(axis=0) == 19
    assert longest.sum() > 100
    assert np.array_equal(batch.inputs[:, longest], copy.inputs[:, longest])
    assert np.array_equal(batch.targets[:, longest], copy.targets[:, longest])


@pytest.mark.parametrize("task", RECALL)
def test_recall_is_wrong_if_a_single_step_is(task):
    task = nf.load_task(task)
    batch = task.sample(seed=1, index=0, batch_size=4, length=10)
    y = np.eye(task.n_out)[batch.targets]
    y[0, 1], y[-1, 2] = np.roll(y[0, 1], 1), np.roll(y[-1, 2], 1)
    assert task.wrong(y, batch).tolist() == [False, True, True, False]


# ------------------------------------------------------------------------------------------------------------ addition


OF_TWO = {"addition": lambda x0, x1: (x0 + x1) / 2, "multiplication": lambda x0, x1: x0 * x1}


@pytest.mark.parametrize("task", OF_TWO)
@pytest.mark.parametrize("length", [10, 11, 19, 29, 100])
def test_addition_and_multiplication_have_their_two_marks_where_they_belong(task, length):
    batch = large(task, length, 4000)
    T = length + length // 10 - 1
    values, marks = batch.inputs[..., 0], batch.inputs[..., 1]
    assert batch.inputs.shape == (T, 4000, 2)
    assert set(np.unique(marks)) == {0, 1}
    assert (marks.sum(axis=0) == 2).all()
    own = (batch.weights != 0).argmax(axis=0) + 1
    assert ((batch.weights != 0).sum(axis=0) == 1).all()
    assert set(own) == set(range(length, T + 1))
    first, second = marks.argmax(axis=0), T - 1 - marks[::-1].argmax(axis=0)
    assert (first < own // 10).all()
    assert ((second >= own // 10) & (second < own // 2)).all()
    assert ((values >= 0) & (values < 1)).all()
    columns = np.arange(4000)
    assert not values[np.arange(T)[:, None] >= own].any()  # nothing after the end
    wanted = OF_TWO[task](values[first, columns], values[second, columns])
    assert np.array_equal(batch.targets[own - 1, columns, 0], wanted)
    assert np.count_nonzero(batch.targets) <= 4000


def test_addition_draws_lengths_positions_and_values_uniformly():
    batch = large("addition")
    values, marks = batch.inputs[..., 0], batch.inputs[..., 1]
    own = (batch.weights != 0).argmax(axis=0) + 1
    first, second = marks.argmax(axis=0), 108 - marks[::-1].argmax(axis=0)
    assert stats.chisquare(np.bincount(own - 100, minlength=10)).pvalue > FALSE_ALARM
    short = own < 110  # every own // 10 is 10 here, and own // 2 is 50 to 54
    assert stats.chisquare(np.bincount(first[short], minlength=10)).pvalue > FALSE_ALARM
    even = own == 100
    assert stats.chisquare(np.bincount(second[even] - 10, minlength=40)).pvalue > FALSE_ALARM
    assert stats.kstest(values[:100].ravel()[:100_000], "uniform").pvalue > FALSE_ALARM
    assert np.array_equal(values * 2**24, np.floor(values * 2**24))


# ------------------------------------------------------------------------------------------- who remembers nothing

# Of Pascanu, Mikolov, Bengio 2013 and their code, in percent.
PUBLISHED = {"temporal_order": 75.0, "temporal_order_3bit": 87.5, "addition": 36.0, "multiplication": 23.3,
             "permutation": 50.0}  # fmt: skip


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_trivial_scores_are_the_published_ones(task):
    assert round(100 * nf.load_task(task).trivial(100).score, 1) == PUBLISHED[task]


def test_the_trivial_losses_of_recall_are_the_published_baseline():
    """10 log(8) / (T + 20) of Arjovsky et al. 2016."""
    for T in (10, 100, 500):
        assert nf.load_task("copy").trivial(T).loss == 10 * np.log(8) / (T + 20)
        assert nf.load_task("memorization").trivial(T).loss == 10 * np.log(5) / (T + 20)


def guesses(name, batch):
    """Return outputs (T, B, M) that know when to answer and what with, but give all of it the same chance."""
    M = nf.load_task(name).n_out
    values = {"permutation": 2, **{task: RECALL[task][1] for task in RECALL}}.get(name, M)
    y = np.full((*batch.targets.shape, M), -1e9)
    answers = batch.targets < values
    y[answers, :values] = 0
    y[~answers, values:] = 0
    return y, answers, values


@pytest.mark.parametrize("task", [task for task in TASKS if task not in OF_TWO])
@pytest.mark.parametrize("length", [10, 50])
def test_a_guess_among_the_right_number_of_classes_has_the_trivial_loss_and_score(task, length):
    size = 2000
    batch, wanted = large(task, length, size), nf.load_task(task).trivial(length)
    y, answers, values = guesses(task, batch)
    # All terms are alike, so their roundings have a trend.
    found = naive.loss("softmax", y, batch.targets, batch.weights)
    assert found == near(wanted.loss, "float64", 1, batch.weights.size, 10)
    chosen = np.random.default_rng(0).integers(values, size=y.shape[:2])
    guess = np.eye(y.shape[-1])[np.where(answers, chosen, batch.targets)]
    wrong = int(nf.load_task(task).wrong(guess, batch).sum())
    assert stats.binomtest(wrong, size, wanted.score).pvalue > FALSE_ALARM


@pytest.mark.parametrize("task", OF_TWO)
def test_no_constant_does_better_than_the_trivial_scores_at_two_numbers(task):
    """By enumeration: the midpoints of a million squares, and every hundredth from 0 to 1 as a guess."""
    n = 1000
    x = (np.arange(n) + 0.5) / n
    targets, wanted = OF_TWO[task](x[:, None], x[None, :]), nf.load_task(task).trivial(100)
    squared = [(targets - c / 100) ** 2 for c in range(101)]
    assert min(np.mean(e > 0.04) for e in squared) == pytest.approx(wanted.score, abs=1 / n)
    assert min(np.mean(e) for e in squared) == pytest.approx(wanted.loss, abs=1 / n**2)


@pytest.mark.parametrize(("task", "best", "mean"), [("addition", 0.5, 0.5), ("multiplication", 0.2, 0.25)])
def test_the_best_constants_reach_the_trivial_score_and_loss_on_samples(task, best, mean):
    batch, found = large(task), nf.load_task(task)
    wrong = int(found.wrong(np.full((*batch.weights.shape, 1), best), batch).sum())
    assert stats.binomtest(wrong, 20_000, found.trivial(100).score).pvalue > FALSE_ALARM
    losses = (batch.targets[batch.weights != 0, 0] - mean) ** 2
    assert stats.ttest_1samp(losses, found.trivial(100).loss).pvalue > FALSE_ALARM


# -------------------------------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_is_right_and_any_other_is_wrong(task):
    task = nf.load_task(task)
    batch = task.sample(seed=1, index=0, batch_size=6, length=20, replicas=2, dtype="float64")
    right = np.eye(task.n_out)[batch.targets] if task.classes else batch.targets.copy()
    silent = batch.weights == 0
    right[silent] = 77.0  # where the weight is 0, what is said does not count
    assert task.wrong(right, batch).shape == (2, 6)
    assert not task.wrong(right, batch).any()
    y = right.copy()  # NaN at the right class is no right answer, though numpy's argmax finds it
    heard = np.flatnonzero(~silent[1, :, 4])
    y[1, heard, 4, batch.targets[1, heard, 4] if task.classes else 0] = np.nan
    assert task.wrong(y, batch)[1].tolist() == [False, False, False, False, True, False]
    assert not task.wrong(y, batch)[0].any()
    y = right.copy()
    y[0, :, 2] = np.roll(y[0, :, 2], 1, axis=-1) if task.classes else y[0, :, 2] + 0.21
    assert task.wrong(y, batch)[0].tolist() == [False, False, True, False, False, False]
    for bad in (1e200, np.inf):  # without a warning
        assert task.wrong(np.full_like(right, bad), batch).all() or task.classes


def test_a_sum_is_wrong_if_its_squared_error_is_above_its_tolerance():
    task = nf.load_task("addition")
    batch = task.sample(seed=1, index=0, batch_size=4, length=20, dtype="float64")
    y = batch.targets + np.array([0.199, -0.199, 0.201, -0.201])[None, :, None]
    assert task.wrong(y, batch).tolist() == [False, False, True, True]


def test_a_class_is_right_only_where_it_is_asked_for():
    task = nf.load_task("temporal_order")
    batch = task.sample(seed=1, index=0, batch_size=4, length=20)
    y = np.eye(4)[(batch.targets + 1) % 4]
    assert task.wrong(y, batch).all()
    y[-1] = np.eye(4)[batch.targets[-1]]
    assert not task.wrong(y, batch).any()
    everywhere = batch._replace(weights=np.ones_like(batch.weights))
    assert task.wrong(y, everywhere).all()  # wrong at any step that counts is wrong
