import itertools
import math

import numpy as np
import pytest
from drifting_runs import drifting
from scipy.stats import page_trend_test

from valuedrift_mlflow.statistics.ablation_power import announced, simulated
from valuedrift_mlflow.statistics.power import Design
from valuedrift_mlflow.statistics.trends import shuffled, trend


def test_three_seeds_in_order_have_the_least_p_value_there_is() -> None:
    found = shuffled(np.array([[0.1, 0.3, 0.6], [0.2, 0.3, 0.5], [0.1, 0.4, 0.5]]))
    assert (found.correlation, found.p_value) == (pytest.approx(1), pytest.approx(2 / 216))


def test_seeds_that_differ_hide_no_trend() -> None:
    """Seeds far apart, each rising: over all nine runs the rank correlation is weak, within seeds it is 1."""
    found = shuffled(np.array([[0.1, 0.11, 0.12], [0.4, 0.41, 0.42], [0.7, 0.71, 0.72]]))
    assert found.correlation == pytest.approx(1)
    assert found.p_value < 0.05


def test_the_p_value_is_pages() -> None:
    drifts = np.array([[0.3, 0.1, 0.5, 0.6], [0.2, 0.3, 0.4, 0.1], [0.1, 0.2, 0.6, 0.5]])
    assert shuffled(drifts).p_value == pytest.approx(2 * page_trend_test(drifts).pvalue)


def test_where_a_run_failed_all_orders_within_seeds_are_looked_at() -> None:
    drifts = np.array([[0.1, 0.3, 0.6], [0.2, np.nan, 0.5]])
    x, y = [np.array([-1.0, 0, 1]), np.array([-0.5, 0.5])], [np.array([-1.0, 0, 1]), np.array([-0.5, 0.5])]
    fits = [
        x[0] @ np.array(a) + x[1] @ np.array(b)
        for a, b in itertools.product(itertools.permutations(y[0]), itertools.permutations(y[1]))
    ]
    expected = np.mean(np.abs(fits) >= 2.5 - 1e-9)
    assert shuffled(drifts).p_value == pytest.approx(expected)


def test_nothing_to_compare_is_no_trend() -> None:
    assert math.isnan(shuffled(np.array([[0.1], [0.2]])).p_value)
    assert math.isnan(shuffled(np.array([[0.2, 0.2], [0.3, 0.3]])).p_value)


def test_many_orders_are_drawn() -> None:
    rng = np.random.default_rng(0)
    rising = np.arange(6) + 0.1 * rng.standard_normal((4, 6))
    rising[0, 3] = np.nan
    assert shuffled(rising).p_value <= 0.001


def test_a_planted_trend_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(1)
    sizes = (0.0, 0.2, 0.4)
    cells = [drifting(size, 3, rng) for size in sizes]
    drifts = np.array([[size + 0.01 * seed for size in sizes] for seed in range(3)])
    found = trend(cells, drifts)
    assert found.p_value <= 0.01
    assert found.rises
    assert found.ends.difference.low < 0.4 < found.ends.difference.high
    assert 0 < found.detectable < 0.4
    assert not trend(cells[::-1], drifts[:, ::-1]).rises


def test_few_seeds_can_be_sure_of_a_large_trend() -> None:
    """No order of three doses and three seeds has a p below 2 / 216: 18 lines could never be significant."""
    rng = np.random.default_rng(2)
    cells = [drifting(size, 3, rng) for size in (0.0, 0.3, 0.6)]
    drifts = np.array([[0.1, 0.3, 0.6]] * 3)
    found = trend(cells, drifts)
    assert found.p_shuffled == pytest.approx(2 / 216)
    assert found.p_value < 0.05 / 18
    one_seed = trend([cell[:1] for cell in cells], drifts[:1])
    assert one_seed.p_value == pytest.approx(1 / 3)  # of one seed the shuffles are all there is


def test_doses_that_change_nothing_are_rarely_called_a_trend() -> None:
    """5 % of 300 has a standard error of 1.3 %."""
    rng = np.random.default_rng(3)
    found = [
        trend([drifting(0.2, 3, rng, topics=2) for _ in range(3)], np.full((3, 3), np.nan), tests=18).p_value <= 0.05
        for _ in range(300)
    ]
    assert np.mean(found) <= 0.08


def test_what_an_ablation_is_said_to_find_is_found() -> None:
    """Two topics of six propositions, three seeds: planted as announced, found in about 80 % (standard error 4 %)."""
    design = Design(topics=2, propositions=6, prompts=2, samples=5)
    least = announced(design, 3, 3)
    assert least.rise < announced(design, 3, 3, tests=3).rise
    rng, found = np.random.default_rng(4), []
    for _ in range(100):
        one = trend(simulated(design, np.linspace(0, least.largest, 3), 3, rng), np.full((3, 3), np.nan))
        found.append((one.p_value <= 0.05, one.ends.difference.value))
    power, rise = np.mean(found, axis=0)
    assert power == pytest.approx(0.8, abs=0.12)
    assert rise == pytest.approx(least.rise, abs=0.05)
