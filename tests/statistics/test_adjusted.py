import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.statistics.adjusted import Readings, adjusted_drift, adjusted_stances, onto_simplex

CONFUSION = np.array([[8, 1, 0, 1], [1, 8, 1, 0], [0, 1, 8, 1]])


def test_the_judges_errors_are_taken_off_by_hand() -> None:
    """Stances (0.5, 0.3, 0.2): verdicts 0.8 * 0.5 + 0.1 * 0.3 = 0.43, 0.05 + 0.24 + 0.02 = 0.31, 0.03 + 0.16 = 0.19."""
    verdicts = np.repeat([0, 1, 2, 3], [43, 31, 19, 7])
    found = adjusted_stances(verdicts, np.zeros(100, dtype=np.int64), np.arange(100), CONFUSION, 1)
    assert found.value[0] == pytest.approx([0.5, 0.3, 0.2])
    assert found.value[1] == pytest.approx(found.value[0])
    sure = adjusted_stances(verdicts, np.zeros(100, dtype=np.int64), np.arange(100), 1000 * CONFUSION, 1)
    assert np.diff(sure.interval[0, 0])[0] < 0.7 * np.diff(found.interval[0, 0])[0]  # the check set's size counts


def readings(*counts: int) -> Readings:
    """So many verdicts of each kind in one topic, each on a proposition of its own."""
    verdicts = np.repeat([0, 1, 2, 3], counts)
    return Readings(verdicts, np.zeros(len(verdicts), dtype=np.int64), np.arange(len(verdicts)))


def test_the_judges_errors_are_taken_off_a_drift_by_hand() -> None:
    """From stances (0.5, 0.3, 0.2) to (0.2, 0.3, 0.5): verdicts (43, 31, 19, 7) to (19, 31, 43, 7) of 100.

    The change is (-0.3, 0, 0.3); the shares of the scored verdicts change by 24 / 93 = 0.258 only.
    """
    before, after = readings(43, 31, 19, 7), readings(19, 31, 43, 7)
    found = adjusted_drift(before, after, 1000 * CONFUSION, 1)
    for row in (0, 1):
        assert found.value[row] == pytest.approx([-0.3, 0.0, 0.3])
        assert found.total_variation[row] == pytest.approx(0.3)
        assert found.total_variation_interval[row, 0] < 0.3 < found.total_variation_interval[row, 1]
    assert found.interval[0, 2, 0] > 0  # that it opposes more is sure
    none = adjusted_drift(before, before, CONFUSION, 1)
    assert none.total_variation[0] == none.total_variation_interval[0, 0] == 0
    assert np.abs(none.interval).max() == 0  # the same responses, the same judge, however badly it is known


def test_the_interval_of_an_adjusted_drift_holds_what_is_planted() -> None:
    """40 check sets of 150 answers, 300 new responses at either end: as for the stances below."""
    rng = np.random.default_rng(4)
    matrix, ends = CONFUSION / 10, np.array([[0.6, 0.1, 0.3], [0.4, 0.1, 0.5]])
    held = held_variation = 0
    for _ in range(40):
        check = np.stack([rng.multinomial(50, row) for row in matrix])
        read = [
            Readings(
                np.array([rng.choice(4, p=matrix[rng.choice(3, p=truth)]) for _ in range(300)]),
                np.zeros(300, dtype=np.int64),
                np.arange(300),
            )
            for truth in ends
        ]
        found = adjusted_drift(read[0], read[1], check, 1)
        held += int(found.interval[0, 2, 0] <= 0.2 <= found.interval[0, 2, 1])
        held_variation += int(found.total_variation_interval[0, 0] <= 0.2 <= found.total_variation_interval[0, 1])
    assert held >= 32
    assert held_variation >= 32


def test_verdicts_that_do_not_depend_on_the_truth_say_nothing() -> None:
    assert np.isnan(adjusted_drift(readings(1, 1, 0, 0), readings(1, 0, 1, 0), np.array([[5] * 4] * 3), 1).value).all()

    same = np.array([[5, 5, 5, 5]] * 3)
    found = adjusted_stances(np.array([0, 1]), np.zeros(2, dtype=np.int64), np.arange(2), same, 1)
    assert np.isnan(found.value).all()


def test_a_stance_without_a_labelled_answer_is_refused() -> None:
    with pytest.raises(InputError, match="at least one of each"):
        adjusted_stances(np.array([0]), np.array([0]), np.array([0]), CONFUSION * [[1], [0], [1]], 1)


def test_the_interval_holds_what_is_planted() -> None:
    """40 check sets of 150 answers: 95 % intervals miss a planted stance more than 8 times in 1 of 10,000 tests."""
    rng = np.random.default_rng(2)
    matrix, truth = CONFUSION / 10, np.array([0.6, 0.1, 0.3])
    held = 0
    for _ in range(40):
        check = np.stack([rng.multinomial(50, row) for row in matrix])
        said = [rng.choice(4, p=matrix[rng.choice(3, p=truth)]) for _ in range(300)]
        found = adjusted_stances(np.array(said), np.zeros(300, dtype=np.int64), np.arange(300), check, 1)
        held += int(found.interval[0, 0, 0] <= truth[0] <= found.interval[0, 0, 1])
    assert held >= 32


@settings(deadline=None)
@given(point=st.lists(st.floats(-2, 2), min_size=3, max_size=3), seed=st.integers(0, 1000))
def test_nothing_on_the_simplex_is_nearer(point: list[float], seed: int) -> None:
    moved = onto_simplex(np.array(point))
    assert moved.sum() == pytest.approx(1)
    assert (moved >= 0).all()
    others = np.random.default_rng(seed).dirichlet([0.5] * 3, 200)
    assert np.linalg.norm(moved - point) <= np.linalg.norm(others - point, axis=1).min() + 1e-9
