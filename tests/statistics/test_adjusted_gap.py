import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.adjusted_gap import adjusted_gap

CONFUSION = np.array([[8, 1, 1, 5], [1, 8, 1, 5], [1, 1, 8, 5]])
RIGHT = np.array([[50, 0, 0, 3], [0, 50, 0, 3], [0, 0, 50, 3]])


def of(table: np.ndarray, confusion: np.ndarray = CONFUSION):
    """Pairs by (3, 3) counts of the verdicts on both sides, each on a prompt of its own."""
    chosen, rejected = (np.repeat(place.ravel(), table.ravel()) for place in np.indices((3, 3)))
    return adjusted_gap(chosen, rejected, np.arange(len(chosen)), confusion)


def test_a_gap_that_is_all_error_by_hand() -> None:
    """A third of the pairs of each stance, both sides alike: verdicts alike in .64 + .01 + .01 = .66 of them.

    Of 300 such pairs each diagonal cell has 100 (.8 .8 + .1 .1 + .1 .1) / 3 x 3 = 66, each other one
    100 (.8 .1 + .1 .8 + .1 .1) = 17.
    """
    found = of(np.full((3, 3), 17) + 49 * np.eye(3, dtype=int))
    assert found.of_error.value == pytest.approx(0.34, abs=1e-9)
    assert found.adjusted.value == pytest.approx(0, abs=1e-9)
    assert found.adjusted.low == 0 < found.adjusted.high
    assert found.explained


def test_a_gap_behind_errors_by_hand() -> None:
    """All chosen support, all rejected oppose: (.8 .1 .1) against (.1 .1 .8), 0.83 of the verdicts differ."""
    table = np.rint(1000 * np.outer([0.8, 0.1, 0.1], [0.1, 0.1, 0.8])).astype(int)
    found = of(table, 100 * CONFUSION)
    assert found.adjusted.value == pytest.approx(1, abs=1e-9)
    assert found.adjusted.low > 0.9
    assert not found.explained


def test_a_judge_without_errors_changes_nothing() -> None:
    found = of(np.array([[40, 0, 0], [0, 30, 0], [30, 0, 0]]), 1000 * RIGHT)
    assert (found.of_error.value, found.adjusted.value) == pytest.approx((0, 0.3))
    assert not found.explained


def test_a_judge_that_errs_less_here_than_there_leaves_no_interval_without_width() -> None:
    found = of(np.array([[60, 0, 0], [0, 40, 2], [0, 0, 60]]))
    assert found.adjusted.value == found.adjusted.low == 0
    assert 2 / 162 < found.adjusted.high < 0.1
    assert found.explained


@pytest.mark.parametrize(
    "confusion", [np.array([[0, 0, 0, 9], [1, 8, 1, 0], [0, 1, 8, 0]]), np.ones((3, 4), dtype=int)]
)
def test_errors_that_are_not_known_leave_nothing_to_say(confusion: np.ndarray) -> None:
    found = of(np.full((3, 3), 20), confusion)
    assert math.isnan(found.adjusted.value) and math.isnan(found.of_error.value)
    assert found.explained


def test_what_is_planted_behind_errors_is_covered() -> None:
    """60 audits of 300 pairs, gaps 0 and 0.4, with errors counted on 60 texts a stance; an error of 0.03."""
    rng = np.random.default_rng(1)
    matrix = np.array([[0.7, 0.04, 0.26], [0.05, 0.9, 0.05], [0.21, 0.03, 0.76]])
    held = wrong = 0
    for turn in range(60):
        gap = 0.4 * (turn % 2)
        truth = rng.choice(3, 300, p=[0.4, 0.2, 0.4])
        other = np.where(rng.random(300) < gap, (truth + rng.integers(1, 3, 300)) % 3, truth)
        chosen, rejected = (np.array([rng.choice(3, p=matrix[own]) for own in side]) for side in (truth, other))
        check = np.array([[*rng.multinomial(60, row), 0] for row in matrix])
        found = adjusted_gap(chosen, rejected, np.arange(300), check, seed=turn)
        held += found.adjusted.low <= gap <= found.adjusted.high
        wrong += gap == 0 and not found.explained
    assert held / 60 > 0.85
    assert wrong / 30 < 0.11
