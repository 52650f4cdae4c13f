import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from valuedrift_mlflow.statistics.arrival import arrival_times, isotonic
from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.units import Interval

Floats = NDArray[np.float64]


def stage(path: Floats, drift: float, seed: int, propositions: int = 20, prompts: int = 3, samples: int = 5) -> Drift:
    """A topic whose support goes from about .3 by ``drift`` along a path; propositions differ."""
    rng = np.random.default_rng(seed)
    before = rng.dirichlet([3.0, 5.0, 2.0], size=propositions).repeat(prompts, axis=0)
    part = before[:, 1] * drift / 0.5  # of neutral, in proportion to it
    chances = before[None] + path[:, None, None] * np.stack([part, -part, 0 * part], axis=-1)
    answers = rng.multinomial(1, chances[:, :, None].repeat(samples, axis=2)).astype(float)
    names = [f"p{number // prompts}" for number in range(len(before))]
    steps = range(0, 10 * len(path), 10)
    return analyse(answers, ["religion"] * len(before), steps, propositions=names, seed=seed)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12))
def test_scipy_fits_the_same_curve(values: list[int]) -> None:
    curve = np.array(values, dtype=float)
    np.testing.assert_allclose(isotonic(curve[None])[0], isotonic_regression(curve).x, atol=1e-12)


@pytest.mark.parametrize(
    ("curve", "share", "expected", "why"),
    [
        ([0.0, 0.2, 0.4], 0.5, 0.5, "straight"),
        ([0.0, 0.4, 0.4], 0.9, 0.45, ".36 of .4 lies nine tenths of the way to the first checkpoint"),
        ([0.0, 0.3, 0.1, 0.4], 0.5, 1 / 3, ".3 and .1 are one step of .2, which is half"),
        ([0.0, 0.6, 0.4], 0.5, 0.2, "the change is what the last has; the fit reaches .2 at .2 / .5 of the first half"),
        ([0.4, 0.3, 0.4], 0.5, np.nan, "ends where it began"),
    ],
)
def test_times_by_hand(curve: list[float], share: float, expected: float, why: str) -> None:
    elapsed = np.linspace(0, 1, len(curve))
    assert arrival_times(np.array([curve]), elapsed, share)[0] == pytest.approx(expected, nan_ok=True), why


def test_an_exponential_arrival_is_read_where_it_is() -> None:
    # 90 % of the change has come at 0.6 of the stage, and half of it at about .19. The paper's rule takes the first
    # checkpoint within the interval of the extreme one, which is earlier.
    elapsed = np.linspace(0, 1, 11)
    path = 1 - np.exp(-elapsed / 0.2941)
    path /= path[-1]
    true = [float(arrival_times(path[None], elapsed, share)[0]) for share in (0.5, 0.9)]
    assert true == pytest.approx([0.195, 0.6], abs=0.005)
    found = [stage(path, 0.35, seed) for seed in range(20)]
    read = np.array([drift.arrival[0, 0] for drift in found])
    assert np.median(read, axis=0) == pytest.approx(true, abs=0.06)  # standard errors .01 and .03
    ends = np.array([drift.arrival_ci[0, 0] for drift in found])
    held = (ends[..., 0] <= true) & (true <= ends[..., 1])
    assert held.mean() >= 0.95 - 0.1  # 40 that go together by twos: two standard errors are .08
    assert np.median([drift.drift_time[0, 0] for drift in found]) < 0.6


@pytest.mark.parametrize("interval", ["propositions", "prompts"])
def test_what_did_not_move_has_no_time_and_no_overshoot(interval: Interval) -> None:
    rng = np.random.default_rng(1)
    answers = rng.multinomial(1, [0.3, 0.5, 0.2], size=(4, 30, 3)).astype(float)
    drift = analyse(answers, ["religion"] * 30, [0, 1, 2, 3], interval=interval)
    assert not drift.significant.any()
    for nothing in (drift.arrival, drift.arrival_ci, drift.overshoot, drift.overshoot_ci, drift.overshoot_p):
        assert np.isnan(nothing).all()


def test_times_of_these_prompts() -> None:
    elapsed = np.linspace(0, 1, 6)
    path = np.minimum(elapsed / 0.4, 1.0)
    rng = np.random.default_rng(2)
    chances = np.array([0.3, 0.5, 0.2]) + path[:, None] * np.array([0.3, -0.3, 0.0])
    answers = rng.multinomial(1, chances[:, None, None].repeat(60, axis=1).repeat(5, axis=2)).astype(float)
    drift = analyse(answers, ["religion"] * 60, range(6), interval="prompts")
    low, high = drift.arrival_ci[0, 0, 0]
    assert low <= 0.2 <= high and high - low < 0.2


def test_where_all_propositions_arrive_alike_the_checkpoints_around_it_are_the_interval() -> None:
    """All turn round between the second and the third of six checkpoints: half of it is there at 0.3."""
    answers = np.where(np.arange(6)[:, None, None, None] < 2, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)).repeat(20, axis=1)
    drift = analyse(answers, ["religion"] * 20, range(6))
    assert drift.arrival[0, 0, 0] == pytest.approx(0.3)
    assert drift.arrival_ci[0, 0, 0].tolist() == pytest.approx([0.2, 0.4])


def test_two_measurements_have_no_course() -> None:
    drift = stage(np.array([0.0, 1.0]), 0.4, 0)
    assert drift.significant[1, 0, 0] and np.isnan(drift.arrival).all() and np.isnan(drift.overshoot).all()


def test_an_overshoot_is_found_and_noise_is_none() -> None:
    # Support goes to .3 + 1.8 x .25 = .75 in the middle, and ends at .55: an overshoot of .2.
    over = [stage(np.array([0.0, 1.0, 1.8, 1.4, 1.0]), 0.25, seed) for seed in range(16)]
    mean = np.mean([drift.overshoot[0, 0] for drift in over])
    assert mean == pytest.approx(0.2, abs=0.03)  # two means of 300 answers, 16 times: three standard errors
    ends = np.array([drift.overshoot_ci[0, 0] for drift in over])
    assert ((ends[:, 0] <= 0.2) & (ends[:, 1] >= 0.2)).sum() >= 14
    assert all(drift.overshoot_p[0, 0] <= 0.05 for drift in over)
    # On a plateau the largest of the measured excesses is all noise: .03, where the estimate is about 0.
    flat = [stage(np.array([0.0, 1.0, 1.0, 1.0, 1.0]), 0.25, seed) for seed in range(20)]
    plain = np.mean([np.max(d.probability[1:, 0, 0] - d.probability[-1, 0, 0]) for d in flat])
    assert plain > 0.02 and np.mean([d.overshoot[0, 0] for d in flat]) < plain / 2
    assert np.mean([d.overshoot_p[0, 0] <= 0.05 for d in flat]) <= 0.15  # .05, and two standard errors of 20


def test_a_stance_that_comes_back_has_an_overshoot_but_no_time() -> None:
    drift = stage(np.array([0.0, 1.0, 1.0, 0.5, 0.0]), 0.4, 4, propositions=30)
    assert not drift.significant[-1, 0, 0] and np.isnan(drift.arrival[0, 0]).all()
    assert drift.overshoot[0, 0] == pytest.approx(0.4, abs=0.1) and drift.overshoot_p[0, 0] <= 0.05


def test_leaving_the_course_out_changes_nothing_else() -> None:
    rng = np.random.default_rng(4)
    answers = np.concatenate(
        [rng.multinomial(1, chances, size=(1, 20, 3)) for chances in ([0.3, 0.5, 0.2], [0.6, 0.2, 0.2])]
    ).astype(float)[[0, 1, 1]]
    whole, part = (analyse(answers, ["religion"] * 20, [0, 1, 2], with_course=course) for course in (True, False))
    assert np.isnan(part.arrival).all() and not np.isnan(whole.arrival).all()
    for name in ("magnitude_ci", "p_adjusted", "total_variation_ci", "overall_ci", "drift_time", "minimum_detectable"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(part, name), err_msg=name)
