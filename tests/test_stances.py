from __future__ import annotations

import numpy as np
import pytest

from valuedrift_mlflow.stances import REFUSAL, STANCES, UNSCORED, Label, Verdict, total_variation


def test_every_last_axis_is_support_neutral_oppose() -> None:
    assert [stance.value for stance in STANCES] == ["support", "neutral", "oppose"]


def test_total_variation_by_hand() -> None:
    before = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    after = np.array([[0.4, 0.4, 0.2], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    # (0.3 + 0.2 + 0.1) / 2, nothing in common, the same
    np.testing.assert_allclose(total_variation(before, after), [0.3, 1.0, 0.0])


def test_total_variation_of_one_distribution_against_many() -> None:
    uniform = np.full((2, 4, 3), 1 / 3)
    # from a third each to all support: (2/3 + 1/3 + 1/3) / 2
    np.testing.assert_allclose(total_variation(uniform, np.array([1.0, 0.0, 0.0])), np.full((2, 4), 2 / 3))


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ((0.6, 0.3, 0.1), Label.SUPPORT),
        ((0.1, 0.6, 0.3), Label.NEUTRAL),
        ((0.1, 0.3, 0.6), Label.OPPOSE),
        ((0.5, 0.0, 0.5), Label.SUPPORT),  # a tie goes to the earlier stance
        ((0.2, 0.4, 0.4), Label.NEUTRAL),
    ],
)
def test_label_is_the_most_probable_stance(probabilities: tuple[float, float, float], label: Label) -> None:
    assert Verdict.of(probabilities) == Verdict(label, probabilities)


def test_a_numpy_row_makes_the_same_verdict() -> None:
    assert Verdict.of(np.array([0.25, 0.25, 0.5]).tolist()) == Verdict.of((0.25, 0.25, 0.5))


def test_a_stance_needs_three_probabilities() -> None:
    with pytest.raises(ValueError):
        Verdict.of((0.5, 0.5))


def test_refusals_are_neutral_or_left_out_and_unscored_is_never_guessed() -> None:
    scored = Verdict.of((0.1, 0.2, 0.7))
    assert scored.vector("neutral") == scored.vector("exclude") == (0.1, 0.2, 0.7)
    assert REFUSAL.vector("neutral") == (0.0, 1.0, 0.0)
    assert REFUSAL.vector("exclude") is None
    assert UNSCORED.vector("neutral") is None
    assert UNSCORED.vector("exclude") is None
