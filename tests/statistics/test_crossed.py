import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from valuedrift_mlflow.statistics.crossed import Crossed, Part, crossed

ONE = np.zeros(6, dtype=int)


def test_the_parts_of_the_variance_by_hand() -> None:
    # Seeds 0.2 and 0.4: 0.02 / 2 = 0.01. Propositions 0.1, 0.3, 0.5 over the seeds: 0.04 / 3 = 0.013333.
    # The rest is 0: both seeds differ by 0.2 everywhere.
    found = crossed(np.array([[0.0, 0.2, 0.4], [0.2, 0.4, 0.6]]), np.zeros(3, dtype=int))
    assert found.mean == pytest.approx(0.3)
    assert found.seeds == Part(pytest.approx(0.01), 1.0)
    assert found.propositions == Part(pytest.approx(0.04 / 3), pytest.approx(2.0))
    half = np.sqrt(t.ppf(0.975, 1) ** 2 * 0.01 + t.ppf(0.975, 2) ** 2 * 0.04 / 3)
    assert found.half_width() == pytest.approx(half)


def test_what_is_in_seeds_and_propositions_alike_counts_once() -> None:
    # All is rest: y = +-0.1. Seed means 0; proposition means 0; rest variance is what the propositions show, and less.
    found = crossed(np.array([[0.1, -0.1], [-0.1, 0.1]]), np.zeros(2, dtype=int))
    assert (found.seeds.variance, found.propositions.variance) == (0.0, 0.0)


def test_of_one_seed_it_is_the_t_test_of_the_propositions() -> None:
    values = np.array([[0.1, 0.3, -0.1, 0.4, 0.2, 0.0]])
    found, peer = crossed(values, ONE), ttest_1samp(values[0], 0)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-4)
    assert found.interval().low == pytest.approx(peer.confidence_interval().low)


def test_of_seeds_alone_it_is_the_t_test_of_the_seeds() -> None:
    seeds = np.array([0.1, 0.3, 0.25, 0.2])
    found, peer = crossed(np.repeat(seeds[:, None], 6, axis=1), ONE), ttest_1samp(seeds, 0)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-4)
    assert found.half_width(0.01) == pytest.approx(seeds.mean() - peer.confidence_interval(0.99).low)


def test_a_topic_with_one_proposition_has_no_error() -> None:
    found = crossed(np.array([[0.1, 0.2, 0.4]]), np.array([0, 0, 1]))
    assert found.mean == pytest.approx((0.15 + 0.4) / 2)
    assert np.isnan(found.variance)
    assert np.isnan(found.p_value)


def test_nothing_that_varies_about_nothing_is_no_finding() -> None:
    assert crossed(np.zeros((3, 6)), ONE).p_value == 1.0
    assert np.isnan(crossed(np.ones((3, 6)), ONE).p_value)


def test_what_is_detectable_is_detected_in_four_of_five() -> None:
    """Seeds with 4 degrees of freedom: a mean of the detectable size is found in 80 % (standard error 0.9 %)."""
    error, rng = 0.05, np.random.default_rng(0)
    mean = Crossed(0.0, Part(error**2, 4.0), Part(0.0, 1.0)).detectable()
    seeds = mean + error * np.sqrt(5) * rng.standard_normal((2000, 5))
    found = ttest_1samp(seeds, 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("by_seed", "by_proposition"), [(0.0, 0.1), (0.05, 0.1), (0.1, 0.05), (0.1, 0.0)])
def test_intervals_cover_other_seeds_and_other_propositions(seeds: int, by_seed: float, by_proposition: float) -> None:
    """Planted: 3 topics of 8 propositions, a rest of 0.1. 95 % of 400 has a standard error of 1.1 %."""
    rng, strata = np.random.default_rng(0), np.repeat([0, 1, 2], 8)
    held = []
    for _ in range(400):
        values = 0.3 + by_seed * rng.standard_normal((seeds, 1)) + by_proposition * rng.standard_normal(24)
        ends = crossed(values + 0.1 * rng.standard_normal((seeds, 24)), strata).interval()
        held.append(ends.low <= 0.3 <= ends.high)
    assert np.mean(held) >= 0.925
