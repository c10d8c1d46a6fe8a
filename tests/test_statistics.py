"""Claims about the statistics: the answers of the papers and of hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tolerance import near, printed, within

from nbflow import statistics as st

pytestmark = pytest.mark.sim


# --- Rates.


@pytest.mark.parametrize("k, n", [(0, 10), (10, 10), (3, 10), (81, 263), (15, 148), (1, 29)])
def test_an_interval_of_a_rate_is_wilsons(k, n):
    """Both ends solve (p - k/n)^2 = z^2 p (1 - p) / n, which is Wilson's definition."""
    z, rate = 1.959963984540054, k / n
    found = st.success_rate(k, n)
    a, b, c = 1 + z * z / n, -(2 * rate + z * z / n), rate * rate
    root = math.sqrt(b * b - 4 * a * c)
    assert found == near((rate, (-b - root) / (2 * a), (-b + root) / (2 * a)), size=1.0)


def test_intervals_of_rates_are_the_published_ones():
    """Newcombe 1998 (one proportion), table I, method 3."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (k, n), ends in published.items():
        assert st.success_rate(k, n)[1:] == pytest.approx(ends, abs=printed(4))


def test_intervals_of_differences_are_the_published_ones():
    """Newcombe 1998 (differences), table II, method 10."""
    published = {((56, 48), (70, 80)): (0.0524, 0.3339), ((9, 3), (10, 10)): (0.1705, 0.8090),
                 ((6, 2), (7, 7)): (0.0582, 0.8062), ((5, 0), (56, 29)): (-0.0381, 0.1926),
                 ((0, 0), (10, 20)): (-0.1611, 0.2775),
                 ((10, 0), (10, 20)): (0.6791, 1.0)}  # fmt: skip
    for (solved, runs), ends in published.items():
        found = st.rate_difference(solved, runs)
        assert found.value == solved[0] / runs[0] - solved[1] / runs[1]
        assert found[1:] == pytest.approx(ends, abs=printed(4))


def test_a_difference_turned_round_is_its_opposite():
    one, two = st.rate_difference((3, 8), (10, 12)), st.rate_difference((8, 3), (12, 10))
    assert (one.value, one.low, one.high) == near((-two.value, -two.high, -two.low))


@pytest.mark.parametrize("solved, runs", [(3, 2), (-1, 2), (0, 0), (1.5, 3), (True, 2)])
def test_rates_of_nothing_are_refused(solved, runs):
    with pytest.raises((TypeError, ValueError), match=r"(solved|runs) is .*expected"):
        st.success_rate(solved, runs)


# --- Times.

# Freireich et al. 1963, remission of leukaemia in weeks, as in Cox and Oakes 1984, table 1.1.
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
CONTROL = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def censored(seen, ended):
    return st.passages([*seen, *[None] * len(ended)], [*seen, *ended])


def test_a_survival_curve_is_the_published_one():
    curve = st.survival(censored(*TREATED))
    at = dict(zip(curve.updates.tolist(), curve.unsolved.tolist(), strict=True))
    published = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {update: round(at[update], 3) for update in published} == published
    assert curve.median == 23
    assert (curve.low[:-1] <= curve.unsolved[:-1]).all()
    assert (curve.unsolved[:-1] <= curve.high[:-1]).all()


def test_a_median_that_was_not_seen_is_infinite():
    assert st.survival(st.passages([10, None, None, None], 50)).median == math.inf
    assert st.survival(st.passages([None, None], 50)).median == math.inf
    assert st.survival(st.passages([10, 20], 50)).median == 10


def test_a_curve_does_not_depend_on_how_long_the_unsolved_went_on_after_the_last_one_was_solved():
    one, two = (st.survival(st.passages([10, 20, None], last)) for last in (20, 999))
    assert one.unsolved[:3].tolist() == two.unsolved[:3].tolist() == near([1, 2 / 3, 1 / 3])


@pytest.mark.parametrize("first", [[10, 20], [None, None], [0, 5], [5]])
def test_a_survival_curve_begins_with_all_unsolved_at_update_0(first):
    curve = st.survival(st.passages(first, 50))
    assert (curve.updates[0], curve.unsolved[0], curve.low[0], curve.high[0]) == (0, 1, 1, 1)
    assert (np.diff(curve.updates) >= 0).all()
    assert (np.diff(curve.unsolved) <= 0).all()
    assert len({len(column) for column in curve[:4]}) == 1


def missing():
    """Return columns with one passage at 2000 and one run that was not solved."""
    yield "None", [2000, None]
    yield "NaN", [2000.0, math.nan]
    yield "an array", np.array([2000.0, np.nan])
    yield "a masked array", np.ma.masked_array([2000, 0], [False, True])


@pytest.mark.parametrize("column", [column for _, column in missing()], ids=[name for name, _ in missing()])
def test_what_stands_for_none_in_a_column_is_a_run_that_was_not_solved(column):
    times = st.passages(column, 5000)
    assert (times._uncensored.tolist(), times._right.tolist()) == ([2000], [5000])


@pytest.mark.parametrize("dtype", [None, "Int64", "float64", "object"])
def test_a_column_of_pandas_is_taken_as_it_comes(dtype):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([{"first_passage": 2000}, {"first_passage": None}], index=[7, 3])
    column = frame.first_passage if dtype is None else frame.first_passage.astype(dtype)
    times = st.passages(column, pandas.Series([5000, 6000]))
    assert (times._uncensored.tolist(), times._right.tolist()) == ([2000], [6000])


@pytest.mark.parametrize(
    "first, updates, said",
    [
        (["never", 3], 9, "first_passage is a str for run 0; expected an update, or None for never"),
        ([3, True], 9, "first_passage is a bool for run 1"),
        ([3, -1], 9, "first_passage is -1 for run 1"),
        ([3, math.inf], 9, "first_passage is inf for run 1.*Write None"),
        ([3, 10], 9, "first_passage is 10 for run 1, which had 9 updates; expected at most as many"),
        ([3, None], [9, math.nan], "updates are not all finite"),
        ([3, None], ["a", "b"], "updates are not all finite"),
        ([3, None], [9, 9, 9], r"updates has shape \(3,\); expected a number, or one for each of 2 runs"),
    ],
)
def test_passages_of_another_kind_are_refused(first, updates, said):
    with pytest.raises((TypeError, ValueError), match=said):
        st.passages(first, updates)


def test_the_logrank_test_is_the_published_one():
    """chi^2 = 16.79 on 1 degree of freedom (Cox and Oakes, page 105), p = 4.2e-5."""
    from scipy.stats import chi2

    p = st.logrank(censored(*TREATED), censored(CONTROL, []))
    assert chi2.isf(p, 1) == pytest.approx(16.79, abs=printed(2))
    assert st.logrank(censored(CONTROL, []), censored(*TREATED)) == near(p)


def test_where_nothing_was_solved_nothing_is_told_apart():
    assert st.logrank(st.passages([None] * 3, 10), st.passages([None] * 4, 20)) == 1.0


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="first_passage is empty"):
        st.passages([], 10)


# --- Losses.


def test_a_bootstrap_interval_covers_as_often_as_it_says():
    chance = np.random.default_rng(0)
    samples = chance.exponential(size=(200, 40))
    covered = sum(found.low < 1 < found.high for found in (st.bootstrap(x, resamples=999) for x in samples))
    assert 0.85 < covered / 200 < 0.99
    assert st.bootstrap(samples[0], statistic=np.median).value == np.median(samples[0])


def test_a_bootstrap_interval_is_the_same_again_and_of_equal_values_a_point():
    values = np.random.default_rng(0).normal(size=30)
    assert st.bootstrap(values) == st.bootstrap(values)
    assert st.bootstrap(values) != st.bootstrap(values, rng=1)
    assert st.bootstrap([3.0] * 5) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("call", [st.bootstrap, lambda x: st.equivalence(x, [1.0, 2.0], 1.0)])
@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_losses_that_are_none_are_refused(call, values):
    with pytest.raises(ValueError, match=r"(values|one) .*expected"):
        call(values)


# --- Equivalence.


def test_two_one_sided_tests_agree_with_the_interval_and_with_hand_calculation():
    """Welch's t by hand: means 10 and 12, variances 4 and 9, n = 16 and 25."""
    from scipy.stats import t

    chance = np.random.default_rng(1)
    a, b = (exactly(chance, *of) for of in ((10, 2, 16), (12, 3, 25)))
    error, degrees = math.sqrt(4 / 16 + 9 / 25), (4 / 16 + 9 / 25) ** 2 / ((4 / 16) ** 2 / 15 + (9 / 25) ** 2 / 24)
    for margin in (1.0, 2.0, 3.0, 3.3, 3.4, 5.0):
        found = st.equivalence(a, b, margin)
        p = max(t.sf((-2 + margin) / error, degrees), t.cdf((-2 - margin) / error, degrees))
        assert found.p == near(p, "float64", 20, 500)
        half = t.isf(0.05, degrees) * error
        assert found.difference == near((-2, -2 - half, -2 + half))
        assert found.equivalent == (p < 0.05) == (-margin < found.difference.low and found.difference.high < margin)
    assert {st.equivalence(a, b, margin).equivalent for margin in (3.0, 5.0)} == {True, False}


def test_two_one_sided_tests_of_pairs_agree_with_the_interval_and_with_hand_calculation():
    """Student's t by hand: 16 differences with mean -2 and variance 9."""
    from scipy.stats import t

    chance = np.random.default_rng(2)
    b = chance.normal(size=16, scale=100)
    a, error = b + exactly(chance, -2, 3, 16), 3 / 4
    for margin in (1.0, 2.0, 3.0, 3.3, 3.4, 5.0):
        found = st.paired_equivalence(a, b, margin)
        p = max(t.sf((-2 + margin) / error, 15), t.cdf((-2 - margin) / error, 15))
        assert found.p == near(p, "float64", 20, 500)
        half = t.isf(0.05, 15) * error
        assert found.difference == near((-2, -2 - half, -2 + half))
        assert found.equivalent == (p < 0.05) == (-margin < found.difference.low and found.difference.high < margin)
    assert st.paired_difference(a, b) == near(2 * t.sf(2 / error, 15), "float64", 20, 500)
    assert not st.equivalence(a, b, 5.0).equivalent, "what a pair has in common is noise to a test of two groups"


def test_pairs_that_all_differ_alike_need_no_test():
    assert st.paired_equivalence([1.0, 2.0], [1.5, 2.5], 0.6) == ((-0.5, -0.5, -0.5), 0.6, 0.0, True)
    assert st.paired_equivalence([1.0, 2.0], [1.5, 2.5], 0.5).equivalent is False
    assert st.paired_difference([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert st.paired_difference([1.0, 2.0], [1.5, 2.5]) == 0.0


@pytest.mark.parametrize("call", [st.paired_difference, lambda a, b: st.paired_equivalence(a, b, 1.0)])
def test_what_is_no_pairs_is_refused(call):
    with pytest.raises(ValueError, match=r"one has 3 numbers and two 2; expected pairs"):
        call([1.0, 2.0, 3.0], [1.0, 2.0])


def test_values_that_are_all_alike_need_no_test():
    assert st.equivalence([1.0] * 3, [1.5] * 3, 0.6) == ((-0.5, -0.5, -0.5), 0.6, 0.0, True)
    assert st.equivalence([1.0] * 3, [1.5] * 3, 0.5).equivalent is False


def exactly(chance, mean, deviation, n):
    """Return n values of exactly this mean and standard deviation."""
    x = chance.normal(size=n)
    return mean + deviation * (x - x.mean()) / x.std(ddof=1)


def test_rates_are_equivalent_where_their_interval_is_within_the_margin():
    found = st.equivalence_of_rates((45, 44), (50, 50), 0.15)
    assert found.difference == st.rate_difference((45, 44), (50, 50), confidence=0.9)
    assert found.equivalent
    assert not st.equivalence_of_rates((45, 44), (50, 50), 0.1).equivalent
    assert not st.equivalence_of_rates((50, 20), (50, 50), 0.3).equivalent
    assert not st.equivalence_of_rates((20, 50), (50, 50), 0.3).equivalent


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf, "1"])
def test_a_margin_that_is_none_is_refused(margin):
    for call in (
        lambda: st.equivalence([1.0, 2.0], [1.0, 2.0], margin),
        lambda: st.paired_equivalence([1.0, 2.0], [1.0, 2.0], margin),
        lambda: st.equivalence_of_rates((1, 1), (2, 2), margin),
    ):
        with pytest.raises((TypeError, ValueError), match="margin is"):
            call()


# --- Many.


def test_holm_is_the_textbooks():
    """Holm 1979: the k-th smallest of n times n - k + 1, never below the one before, never above 1."""
    assert st.holm([0.01, 0.04, 0.03, 0.005]).tolist() == near([0.03, 0.06, 0.06, 0.02])
    assert st.holm([0.5, 0.9, 0.8]).tolist() == [1.0, 1.0, 1.0]
    assert st.holm([0.2]).tolist() == [0.2]
    assert st.holm([]).tolist() == []


def test_holm_keeps_order_and_lies_between_nothing_and_bonferroni():
    p = np.random.default_rng(0).uniform(size=20) ** 3
    found = st.holm(p)
    assert (p <= found).all()
    assert (found <= np.minimum(20 * p, 1) * (1 + within("float64"))).all()
    assert (np.argsort(found, kind="stable")[:3] == np.argsort(p)[:3]).all()
    assert found.min() == 20 * p.min()


@pytest.mark.parametrize("p", [[1.1], [-0.1], [math.nan], [[0.1]]])
def test_p_values_that_are_none_are_refused(p):
    with pytest.raises(ValueError, match=r"p is .*expected"):
        st.holm(p)
