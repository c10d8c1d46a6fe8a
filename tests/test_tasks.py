"""Claims about tasks: sequences by counter, what they hold, and how hard they are for those who know nothing."""

from __future__ import annotations

import functools

import naive
import numpy as np
import pytest
from cases import DTYPES, TASKS
from scipy import stats

import nbflow as nf
from nbflow.task import STREAMS

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


# ------------------------------------------------------------------------------------------------------------ addition


@pytest.mark.parametrize("length", [10, 11, 19, 29, 100])
def test_addition_has_its_two_marks_where_they_belong(length):
    batch = large("addition", length, 4000)
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
    wanted = (values[first, columns] + values[second, columns]) / 2
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


def test_the_best_constant_is_wrong_at_addition_in_36_percent():
    """(x0 + x1)/2 is more than .2 away from 1/2 with probability .36; any other constant does worse."""
    batch, task = large("addition"), nf.load_task("addition")

    def wrong(constant):
        return int(task.wrong(np.full((*batch.weights.shape, 1), constant), batch).sum())

    assert stats.binomtest(wrong(0.5), 20_000, 0.36).pvalue > FALSE_ALARM
    assert wrong(0.5) < min(wrong(0.3), wrong(0.7))


# -------------------------------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_is_right_and_any_other_is_wrong(task):
    task = nf.load_task(task)
    batch = task.sample(seed=1, index=0, batch_size=6, length=20, replicas=2, dtype="float64")
    right = np.eye(task.n_out)[batch.targets] if task.classes else batch.targets.copy()
    silent = batch.weights == 0
    right[silent] = 77.0  # nobody listens there
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
