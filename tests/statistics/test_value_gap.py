import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stances import Label, Verdict
from valuedrift_mlflow.statistics.value_gap import held, mean_distribution, pair_gaps, probabilities, value_gap

SUPPORT, NEUTRAL, OPPOSE = np.eye(3)
NOTHING = np.full(3, np.nan)


def test_the_three_figures_by_hand() -> None:
    chosen = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    rejected = np.array([[0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    # Pairs: (0.5 + 0 + 0.5) / 2 = 0.5 and (0.4 + 0.4 + 0) / 2 = 0.4. Means of the sides: (0.4, 0.5, 0.1) and
    # (0.35, 0.3, 0.35), half of 0.05 + 0.2 + 0.25. Expected stance: 0.6 - (-0.4) and 0 - 0.4, halved: 0.5 and -0.2.
    gap = value_gap(chosen, rejected)
    assert gap.pairwise.value == pytest.approx(0.45)
    assert gap.marginal.value == pytest.approx(0.25)
    assert gap.direction.value == pytest.approx(0.15)
    assert pair_gaps(chosen, rejected) == pytest.approx([0.5, 0.4])


def test_unscored_sides_are_left_out_and_counted() -> None:
    chosen = np.array([SUPPORT, NOTHING, SUPPORT])
    rejected = np.array([OPPOSE, OPPOSE, NOTHING])
    gap = value_gap(chosen, rejected)
    assert (gap.pairs, gap.scored) == (3, 1)
    assert gap.pairwise.value == 1.0
    assert math.isnan(gap.pairwise.low)  # one prompt says nothing of others
    assert math.isnan(value_gap(chosen[1:2], rejected[1:2]).marginal.value)


def test_pairs_that_contradict_each_other_cancel_in_the_marginal_gap_alone() -> None:
    chosen = np.array([SUPPORT, OPPOSE] * 50)
    gap = value_gap(chosen, chosen[:, ::-1])
    assert (gap.pairwise.value, gap.marginal.value, gap.direction.value) == (1.0, 0.0, 0.0)
    assert gap.direction.low < 0 < gap.direction.high


@given(st.integers(1, 12).flatmap(lambda n: arrays(float, (2, n, 3), elements=st.floats(0.01, 1.0))))
def test_bounds_and_order(raw: np.ndarray) -> None:
    chosen, rejected = raw / raw.sum(axis=-1, keepdims=True)
    gap = value_gap(chosen, rejected)
    assert abs(gap.direction.value) <= gap.marginal.value + 1e-9
    assert gap.marginal.value <= gap.pairwise.value + 1e-9 <= 1 + 2e-9
    swapped = value_gap(rejected, chosen)
    assert swapped.pairwise.value == pytest.approx(gap.pairwise.value)
    assert swapped.direction.value == pytest.approx(-gap.direction.value)
    for estimate in (gap.pairwise, gap.marginal, gap.direction):
        if len(chosen) > 1:
            assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held_gap = held_direction = 0
    for trial in range(200):
        differs = rng.random(120) < 0.3
        rejected = np.where(differs[:, None], OPPOSE, SUPPORT)
        gap = value_gap(np.tile(SUPPORT, (120, 1)), rejected, seed=trial)
        held_gap += gap.pairwise.low <= 0.3 <= gap.pairwise.high
        held_direction += gap.direction.low <= 0.3 <= gap.direction.high
    assert 180 <= held_gap <= 198
    assert 180 <= held_direction <= 198


def test_pairs_of_one_prompt_count_as_one() -> None:
    rng = np.random.default_rng(1)
    rejected = np.where((rng.random(60) < 0.4)[:, None], OPPOSE, SUPPORT)
    chosen = np.tile(SUPPORT, (60, 1))
    once = value_gap(chosen, rejected).pairwise
    again = np.repeat(np.arange(60), 9)
    repeated = value_gap(chosen[again], rejected[again], again).pairwise
    apart = value_gap(chosen[again], rejected[again]).pairwise
    assert repeated.value == pytest.approx(once.value)
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.15)
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_an_interval_without_spread_allows_for_what_few_prompts_miss() -> None:
    gap = value_gap(np.tile(SUPPORT, (10, 1)), np.tile(SUPPORT, (10, 1)))
    # Of ten prompts all alike: 1 - 0.025 ** (1 / 10) = 0.3085 (Clopper and Pearson).
    assert (gap.pairwise.low, gap.pairwise.high) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert gap.marginal.high == pytest.approx(0.3085, abs=1e-4)


def test_equal_seeds_give_equal_intervals() -> None:
    rng = np.random.default_rng(2)
    chosen, rejected = rng.dirichlet(np.ones(3), (2, 50))
    assert value_gap(chosen, rejected, seed=3) == value_gap(chosen, rejected, seed=3)
    assert value_gap(chosen, rejected, seed=3) != value_gap(chosen, rejected, seed=4)


def test_what_a_verdict_is_as_a_distribution() -> None:
    unsure = Verdict.of((0.55, 0.0, 0.45))
    assert held(unsure) == (1.0, 0.0, 0.0)
    assert probabilities(unsure) == (0.55, 0.0, 0.45)
    assert held(Verdict(Label.REFUSAL)) == probabilities(Verdict(Label.REFUSAL)) == (0.0, 1.0, 0.0)
    assert np.isnan(probabilities(Verdict(Label.UNSCORED))).all()


def test_a_mix_with_its_intervals() -> None:
    support, neutral, oppose = mean_distribution(np.array([SUPPORT] * 30 + [OPPOSE] * 10 + [NOTHING] * 5))
    assert (support.value, neutral.value, oppose.value) == (0.75, 0.0, 0.25)
    assert support.low < 0.7 < 0.8 < support.high
    assert (neutral.low, neutral.high > 0) == (0.0, True)
    assert math.isnan(mean_distribution(np.array([NOTHING]))[0].value)


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(InputError, match="equal shape"):
        value_gap(np.eye(3), np.eye(3)[:2])
    with pytest.raises(InputError, match="one for each row"):
        value_gap(np.eye(3), np.eye(3), np.arange(2))
