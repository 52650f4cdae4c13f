import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.statistics.axes import analyse_axes, balanced_weights, data_axis, holm, sign_flips, slope

FIVE_AND_FIVE = np.array([1] * 5 + [-1] * 5)


def stances(leaning: np.ndarray, neutral: float = 0.2) -> np.ndarray:
    """Stance probabilities with these leanings."""
    return np.stack([(1 - neutral + leaning) / 2, np.full_like(leaning, neutral), (1 - neutral - leaning) / 2], axis=-1)


def shifted(before: list[float], after: list[float], direction: np.ndarray) -> tuple[float, list[float], float]:
    values = np.stack([stances(np.array(before)), stances(np.array(after))])
    found = analyse_axes(values, np.arange(len(before)), direction[None], ["a"], [0, 1])
    return float(found.shift[-1, 0]), found.shift_ci[-1, 0].tolist(), float(found.p_value[-1, 0])


def test_a_move_to_one_side_is_its_size_on_the_axis() -> None:
    # +0.4 on propositions that point to +, -0.4 on those that point to -: the mean leaning stays 0
    shift, _, p = shifted([0.0] * 10, [0.4] * 5 + [-0.4] * 5, FIVE_AND_FIVE)
    assert shift == pytest.approx(0.4)
    assert p == 2 / 1024  # of 2^10 patterns of signs only the observed one and its mirror are as far


def test_more_agreement_with_everything_is_no_shift_also_where_keys_are_unequal_in_number() -> None:
    assert shifted([0.0] * 10, [0.3] * 10, FIVE_AND_FIVE)[0] == pytest.approx(0)
    three_and_seven = np.array([1] * 3 + [-1] * 7)
    shift, _, p = shifted(
        [0.0] * 10, [0.3] * 10, three_and_seven
    )  # the plain mean would say 0.3 * (3 - 7) / 10 = -0.12
    assert shift == pytest.approx(0)
    assert p == 1


def test_the_interval_is_t_of_the_slope_by_hand() -> None:
    # Changes 0.5, 0.3 (keyed +) and -0.2, -0.4 (keyed -). Means 0.4 and -0.3, slope (0.4 + 0.3) / 2 = 0.35; rests of
    # 0.1: variance 4 * 0.01 / (4 - 2) = 0.02; standard error sqrt(0.02 * 4 / 16) = 0.0707; t(2, 0.975) = 4.3027.
    estimate, interval = slope(np.array([0.5, 0.3, -0.2, -0.4]), np.array([1.0, 1.0, -1.0, -1.0]), 2.0)
    assert estimate == pytest.approx(0.35)
    np.testing.assert_allclose(interval, [0.35 - 4.3027 * 0.070711, 0.35 + 4.3027 * 0.070711], atol=1e-4)


def test_without_spread_the_interval_is_what_missed_propositions_could_make_of_it() -> None:
    # Of 10 propositions none differs; a share of 1 - 0.025 ** (1 / 10) = 0.3085 may have been missed.
    estimate, (low, high) = slope(np.full(10, 0.5), np.ones(10), 1.0)
    assert (estimate, low, high) == pytest.approx((0.5, 0.5 - 0.3085 * 1.5, 0.5 + 0.3085 * 0.5), abs=1e-4)


def test_what_was_not_scored_is_left_out_and_said() -> None:
    values = stances(np.array([[0.0, 0.0, 0.0, 0.0], [0.4, 0.4, -0.4, 0.9]]))
    values[1, 3] = np.nan  # the last proposition is scored at the start alone
    found = analyse_axes(values, np.arange(4), np.array([[1, 1, -1, -1], [0, 0, 0, 1]]), ["a", "b"], [0, 5])
    assert found.shift[1].tolist() == pytest.approx([0.4, math.nan], nan_ok=True)
    assert np.isnan([found.leaning[1, 1], found.p_value[1, 1], found.p_adjusted[1, 1]]).all()
    assert not found.significant[1, 1]
    assert math.isnan(found.bound())  # a gate must not pass on an axis of which nothing is known


def test_the_first_checkpoint_has_moved_nowhere() -> None:
    found = analyse_axes(stances(np.zeros((1, 10))), np.arange(10), FIVE_AND_FIVE[None], ["a"], [0])
    assert (found.shift[0, 0], found.shift_ci[0, 0].tolist(), found.p_value[0, 0]) == (0.0, [0.0, 0.0], 1.0)
    assert found.bound() == 0


@given(st.lists(st.sampled_from([1.0, -1.0]), min_size=1, max_size=9))
def test_weights_sum_to_one_and_take_no_part_of_agreement(direction: list[float]) -> None:
    signs = np.array(direction)
    weights = balanced_weights(signs)
    assert weights.sum() == pytest.approx(1)
    if len(set(direction)) == 2:
        assert weights @ signs == pytest.approx(0)


def test_p_values_of_drawn_flips_are_near_those_of_all() -> None:
    rng = np.random.default_rng(0)
    change = rng.normal(0.1, 0.3, 13)
    exact = sign_flips(change[None], np.ones(13), rng)[0]
    # Eight propositions that did not change turn the enumeration into a draw and add nothing to it.
    drawn = sign_flips(np.concatenate([change / 13 * 21, np.zeros(8)])[None], np.ones(21), rng)[0]
    assert drawn == pytest.approx(exact, abs=0.02)  # 4 standard errors of 10,000 draws


def test_holm_by_hand() -> None:
    # Of three: 3 * 0.01, then max(0.03, 2 * 0.02), then max(0.04, 0.5)
    assert holm(np.array([0.5, 0.01, 0.02])).tolist() == pytest.approx([0.5, 0.03, 0.04])
    # Of four the least counts four times, the next three times, and none less than one before it.
    found = holm(np.array([[0.04, 0.01], [np.nan, 0.02], [0.03, np.nan]]))
    assert found == pytest.approx(np.array([[0.06, 0.04], [np.nan, 0.06], [0.06, np.nan]]), nan_ok=True)


@pytest.mark.parametrize(("count", "tested"), [(7, False), (8, True)])
def test_fewer_than_eight_propositions_are_not_tested(count: int, tested: bool) -> None:
    """All move alike, by much: seven would give 2 / 2^7, below 5 %."""
    values = np.stack([stances(np.zeros(count)), stances(np.full(count, 0.4))])
    found = analyse_axes(values, np.arange(count), np.ones((1, count), dtype=int), ["a"], [0, 1])
    assert (bool(found.significant[1, 0]), bool(np.isfinite(found.p_value[1, 0]))) == (tested, tested)
    apart = halves(np.tile([0.4, -0.4], 4)[:count], np.random.default_rng(0))
    read_off = data_axis(apart, np.zeros(count, dtype=int), [0, 1])
    assert np.isfinite(read_off.shift_ci[1, 0]).all()
    assert bool(np.isfinite(read_off.p_value[1, 0])) == tested


@pytest.mark.parametrize("keyed", [[[0, 0]], [[2, 1]], [[1]], [[1, 1], [1, 1]]])
def test_bad_keys_are_refused(keyed: list[list[int]]) -> None:
    with pytest.raises(InputError, match="axes: found"):
        analyse_axes(stances(np.zeros((1, 2))), np.arange(2), np.array(keyed), ["a"], [0])


# Coverage and size, by simulation -------------------------------------------------------------------------------------


def test_intervals_cover_and_tests_keep_their_level() -> None:
    """Ten propositions whose changes vary by 0.15, 400 times; the agreement changes by 0.2 as well."""
    rng = np.random.default_rng(1)
    changes = 0.2 + 0.1 * FIVE_AND_FIVE + rng.normal(0, 0.15, (400, 10))
    ends = np.array([slope(row, FIVE_AND_FIVE.astype(float), 2.0)[1] for row in changes])
    covered = ((ends[:, 0] <= 0.1) & (ends[:, 1] >= 0.1)).mean()
    assert 0.92 <= covered <= 0.98  # 0.95, and three standard errors of 0.011
    still = sign_flips(rng.normal(0, 0.15, (400, 10)), FIVE_AND_FIVE.astype(float), rng)
    assert (still <= 0.05).mean() <= 0.05 + 3 * 0.011


# The axis that is read off the answers --------------------------------------------------------------------------------


def halves(change: np.ndarray, rng: np.random.Generator, noise: float = 0.15) -> np.ndarray:
    """Leanings in two halves before and after, each measured with an error of its own."""
    before = rng.normal(0, noise, (2, len(change)))
    return np.stack([before, change + rng.normal(0, noise, (2, len(change)))])


def test_an_axis_read_off_the_answers_is_not_inflated_where_nothing_moved() -> None:
    rng = np.random.default_rng(2)
    topics = np.repeat(np.arange(4), 10)
    found = [data_axis(halves(np.zeros(40), rng), topics, [0, 1], seed=seed) for seed in range(60)]
    shifts = np.array([one.shift[1, 0] for one in found])
    # The change of a half has the deviation 0.21, so a direction fitted to the same answers would find 0.17.
    assert abs(shifts.mean()) <= 3 * shifts.std() / math.sqrt(60)
    assert np.mean([one.significant[1, 0] for one in found]) <= 0.05 + 3 * 0.028


def test_an_axis_read_off_the_answers_sees_opposite_moves_and_no_common_one() -> None:
    rng = np.random.default_rng(3)
    topics = np.repeat(np.arange(4), 10)
    apart = data_axis(halves(np.tile([0.4, -0.4], 20), rng), topics, [0, 1])
    assert apart.shift[1, 0] == pytest.approx(0.4, abs=0.1)  # a little less than planted where a sign is read wrong
    assert apart.significant[1, 0]
    together = data_axis(halves(np.full(40, 0.4), rng), topics, [0, 1])
    assert together.shift[1, 0] == pytest.approx(0, abs=0.08)
    assert not together.significant[1, 0]


def test_topics_of_one_proposition_have_no_axis_of_their_own() -> None:
    found = data_axis(halves(np.full(3, 0.4), np.random.default_rng(0)), np.arange(3), [0, 1])
    assert np.isnan(found.shift).all()
    assert math.isnan(found.bound())
