import itertools
import math

import numpy as np
import pytest
from drifting_runs import drifting
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.axes import slope
from valuedrift_mlflow.statistics.axis_pairs import mean_shift
from valuedrift_mlflow.statistics.mean_drift import mean_drift
from valuedrift_mlflow.statistics.paired import Changes, changes, compare, contributions, ratio

Floats = NDArray[np.float64]


def run(change: Floats, topics: NDArray[np.int64] | None = None, prompts: NDArray[np.int64] | None = None) -> Changes:
    n = len(change)
    return Changes(
        change,
        np.full(n, 5) if prompts is None else prompts,
        np.zeros(n, dtype=np.int64) if topics is None else topics,
    )


def test_changes_are_means_over_the_prompts_that_were_scored_twice() -> None:
    before = np.array([[0.2, 0.6, 0.2], [0.4, 0.4, 0.2], [0.5, 0.5, 0.0]])
    after = np.array([[0.6, 0.2, 0.2], [np.nan] * 3, [0.1, 0.5, 0.4]])
    found = changes(before, after, np.array([0, 0, 1]), np.array([0, 0, 1]), "suite")
    np.testing.assert_allclose(found.change, [[0.4, -0.4, 0.0], [-0.4, 0.0, 0.4]])
    assert (found.prompts.tolist(), found.topics.tolist(), found.asked) == ([1, 1], [0, 1], "suite")


def test_the_square_is_the_mean_product_of_different_propositions() -> None:
    """Half of the weighted mean over ordered pairs i != j of d_i . d_j, as it is defined."""
    rng = np.random.default_rng(0)
    change, prompts = rng.normal(size=(5, 3)), np.array([1, 2, 3, 2, 1])
    pairs = list(itertools.permutations(range(5), 2))
    weights = np.array([prompts[i] * prompts[j] for i, j in pairs])
    products = np.array([change[i] @ change[j] for i, j in pairs])
    both = contributions([[run(change, prompts=prompts)]])
    assert both is not None
    assert both.squares[0, 0] == pytest.approx(0.5 * (weights @ products) / weights.sum())


def test_the_square_is_unbiased_where_a_total_variation_is_not() -> None:
    """Nothing moved: the total variation is all noise, the square is 0 on average (standard error 0.0002)."""
    rng = np.random.default_rng(1)
    squares, distances = [], []
    for _ in range(400):
        [one] = drifting(0.0, 1, rng)
        both = contributions([[one]])
        assert both is not None
        squares.append(both.squares[0, 0])
        distances.append(np.mean([np.abs(one.change[one.topics == t].mean(axis=0)).sum() / 2 for t in range(4)]))
    assert abs(np.mean(squares)) < 0.0008
    assert np.mean(distances) > 0.03


def test_a_proposition_that_one_cell_did_not_answer_counts_in_none() -> None:
    rng = np.random.default_rng(2)
    [a], [b] = drifting(0.3, 1, rng), drifting(0.1, 1, rng)
    a.change[3] = np.nan
    kept = np.arange(32) != 3
    whole, part = (
        compare([one], [other])
        for one, other in ((a, b), (run(a.change[kept], a.topics[kept]), run(b.change[kept], b.topics[kept])))
    )
    assert whole == part


def test_cells_that_were_asked_other_things_are_not_compared() -> None:
    change = np.tile([0.2, 0.0, -0.2], (8, 1))
    other = Changes(change, np.ones(8, dtype=int), np.zeros(8, dtype=int), "another suite")
    assert math.isnan(compare([run(change)], [other]).p_value)
    few = run(change[:2])
    assert math.isnan(compare([few], [few]).p_value)  # two propositions: nothing is left when one is left out


def test_a_planted_difference_is_found_and_its_size() -> None:
    rng = np.random.default_rng(3)
    found = compare(drifting(0.4, 3, rng), drifting(0.2, 3, rng))
    assert found.p_value < 0.05
    assert found.difference.low < 0.2 < found.difference.high
    assert found.difference.low > 0
    assert compare(drifting(0.3, 3, rng), drifting(0.3, 3, rng)).p_value > 0.05


def test_pairs_find_what_unpaired_noise_hides() -> None:
    """Seeds that move both cells alike: their spread is no error of the difference."""
    rng = np.random.default_rng(4)
    first, second = [], []
    for common in (0.2, 0.3, 0.4):
        noise = 0.02 * rng.standard_normal((2, 32))
        for own, size, each in ((first, common + 0.1, noise[0]), (second, common, noise[1])):
            own.append(run(np.stack([size + each, np.zeros(32), -size - each], axis=1), np.repeat(np.arange(4), 8)))
    assert compare(first, second).p_value < 0.05
    assert compare(first, second[::-1]).p_value > 0.2  # seeds that do not belong together


@pytest.mark.parametrize(("small", "large"), [(0.0, 0.0), (0.0, 0.3), (0.2, 0.3), (0.3, 0.3)])
def test_intervals_of_differences_cover(small: float, large: float) -> None:
    """95 % of 200 has a standard error of 1.5 %; where nothing moved intervals are too wide rather than too narrow."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(200):
        difference = compare(drifting(large, 3, rng), drifting(small, 3, rng)).difference
        held.append(difference.low <= large - small <= difference.high)
    assert np.mean(held) >= 0.92


def test_what_is_announced_as_detectable_is_found() -> None:
    """Planted at what a comparison says that it detects: found in about 80 % (standard error 4 %)."""
    rng = np.random.default_rng(6)
    least = np.median([compare(drifting(0.2, 4, rng), drifting(0.2, 4, rng)).detectable for _ in range(40)])
    found = [compare(drifting(0.2 + least, 4, rng), drifting(0.2, 4, rng)).p_value <= 0.05 for _ in range(100)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.15)


def test_the_ratio_is_told_on_either_side_of_the_threshold_and_not_at_it() -> None:
    rng = np.random.default_rng(7)
    below, above = (ratio(drifting(size, 3, rng), drifting(0.5, 3, rng), 0.25) for size in (0.0, 0.3))
    assert (below.p_value < 0.05, below.below) == (True, True)
    assert (above.p_value < 0.05, above.below) == (True, False)
    assert above.share.low < 0.6 < above.share.high
    assert above.told_above < 0.6
    at = [ratio(drifting(0.125, 3, rng), drifting(0.5, 3, rng), 0.25).p_value <= 0.05 for _ in range(200)]
    assert np.mean(at) <= 0.06 + 0.03  # a coin flip before: now told in one of twenty at most, give or take two errors


def test_a_ratio_to_what_may_not_have_moved_has_no_end() -> None:
    rng = np.random.default_rng(8)
    found = ratio(drifting(0.0, 3, rng), drifting(0.01, 3, rng), 0.25)
    assert found.share.high == math.inf
    assert found.p_value > 0.05


def test_the_fieller_interval_is_the_set_of_ratios_that_are_not_rejected() -> None:
    rng = np.random.default_rng(9)
    first, second = drifting(0.2, 3, rng), drifting(0.5, 3, rng)
    share = ratio(first, second, 0.25).share
    for end in (share.low, share.high):
        assert ratio(first, second, end).p_value == pytest.approx(0.05, abs=1e-3)


def test_the_mean_drift_by_hand() -> None:
    # 0.2, 0.3, 0.4 along the signs of all three, and along those of the other two: 0.1 / sqrt(3) times 4.302653
    support = np.array([0.2, 0.3, 0.4])
    one = run(np.stack([support, np.zeros(3), -support], axis=1))
    found = mean_drift([one, one])
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - 0.248414, 0.3 + 0.248414), abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("size", [0.0, 0.05, 0.3])
def test_intervals_of_the_mean_drift_cover(seeds: int, size: float) -> None:
    rng = np.random.default_rng(10)
    held = []
    for _ in range(200):
        found = mean_drift(drifting(size, seeds, rng))
        assert found is not None
        held.append(found.low - 1e-9 <= size <= found.high)
    assert np.mean(held) >= 0.92


def test_the_mean_shift_of_one_run_is_the_slope() -> None:
    rng = np.random.default_rng(11)
    change, directions = rng.normal(0, 0.1, (10, 3)), np.array([1, -1, 1, -1, 1, -1, 1, -1, 0, 1])
    found = mean_shift([run(change)], directions)
    own = directions != 0
    estimate, _ = slope((change[:, 0] - change[:, 2])[own], directions[own].astype(float), 2.0)
    assert found.value == pytest.approx(estimate)
    assert found.low < found.value < found.high
