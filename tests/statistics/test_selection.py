import numpy as np
import pytest
from scipy import stats

from valuedrift_mlflow.statistics.drift import analyse
from valuedrift_mlflow.statistics.selection import given_star


def one(estimate: float, error: float, freedom: float, cutoff: float) -> tuple[float, list[float]]:
    middle, ends = given_star(*(np.array([value]) for value in (estimate, error, freedom, cutoff)), 0.05)
    return float(middle[0]), ends[0].tolist()


def test_without_a_cutoff_it_is_the_t_interval() -> None:
    middle, ends = one(0.3, 0.1, 9, 0.0)
    half = stats.t.ppf(0.975, 9) * 0.1
    assert middle == pytest.approx(0.3) and ends == pytest.approx([0.3 - half, 0.3 + half])


def test_with_a_known_error_it_is_the_truncated_normal() -> None:
    # 10^6 degrees of freedom: z = 3 given |z| > 2.5. Under the end, P(z > 3 | star) is .025 or .975, by scipy.stats.
    middle, ends = one(3.0, 1.0, 1e6, 2.5)

    def tail(true: float) -> float:
        return float(stats.norm.sf(3 - true) / (stats.norm.sf(2.5 - true) + stats.norm.cdf(-2.5 - true)))

    assert [tail(middle), tail(ends[0]), tail(ends[1])] == pytest.approx([0.5, 0.025, 0.975], abs=1e-4)


def test_a_change_far_above_the_cutoff_is_left_as_it_is() -> None:
    assert one(-0.9, 0.03, 20, 3.0)[0] == pytest.approx(-0.9, abs=1e-3)
    assert one(0.32, 0.1, 20, 3.0)[0] < 0.25  # just above it, it shrinks


@pytest.mark.parametrize("units", [8, 30])
@pytest.mark.parametrize("true", [0.0, 2.0, 4.0])
def test_coverage_and_median_among_the_starred(units: int, true: float) -> None:
    # Exact for normal units, whatever the true change: 95 % of intervals, and half of the estimates above it.
    rng = np.random.default_rng(units)
    cutoff = {8: 5.5, 30: 3.3}[units]
    estimate = true + rng.standard_normal(400_000)
    error = np.sqrt(rng.chisquare(units - 1, len(estimate)) / (units - 1))
    starred = np.flatnonzero(np.abs(estimate / error) > cutoff)[:1200]
    x, s = estimate[starred], error[starred]
    middle, ends = given_star(x, s, np.full_like(x, units - 1), np.full_like(x, cutoff), 0.05)
    tolerance = 3 / np.sqrt(len(x))
    held = (ends[:, 0] <= true) & (true <= ends[:, 1])
    assert held.mean() == pytest.approx(0.95, abs=0.22 * tolerance)
    if true:
        assert (middle > true).mean() == pytest.approx(0.5, abs=0.5 * tolerance + 0.1)  # some are starred below 0
    if true < 3:
        naive = np.abs(x - true) <= stats.t.ppf(0.975, units - 1) * s
        assert naive.mean() < 0.85


def test_only_stars_have_an_estimate_given_the_star() -> None:
    rng = np.random.default_rng(0)
    topics, names = ["still"] * 60 + ["moved"] * 60, [f"p{number // 3}" for number in range(120)]
    before = rng.multinomial(5, [0.3, 0.5, 0.2], size=120) / 5
    after = np.concatenate(
        [rng.multinomial(5, [0.3, 0.5, 0.2], size=60) / 5, rng.multinomial(5, [0.6, 0.2, 0.2], size=60) / 5]
    )
    drift = analyse([before, after], topics, [0, 1], propositions=names)
    assert np.isnan(drift.topic_selected[1, 0]) and np.isnan(drift.selected[1, 0]).all()
    # Thirty errors from 0 nothing is taken off.
    assert drift.topic_selected[1, 1] == pytest.approx(drift.total_variation[1, 1], abs=0.005)
    low, high = drift.topic_selected_ci[1, 1]
    assert low < drift.topic_selected[1, 1] < high
    assert np.isnan(drift.selected[1, 1, 2]) and drift.selected[1, 1, 0] > 0 > drift.selected[1, 1, 1]
