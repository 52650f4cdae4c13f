import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.attenuation import attenuation, undone
from valuedrift_mlflow.statistics.intervals import Estimate


def judged(rows: list[list[int]], propositions: int = 12):
    """Texts by (3, 4) counts of true stance x verdict, the last column unscored, dealt to propositions in turns."""
    counts = np.array(rows)
    truth = np.repeat(np.indices((3, 4))[0].ravel(), counts.ravel())
    said = np.repeat(np.indices((3, 4))[1].ravel(), counts.ravel())
    verdicts = np.vstack([np.eye(3), np.full((1, 3), np.nan)])[said]
    return attenuation(truth, verdicts, np.arange(len(truth)) % propositions)


def test_by_hand() -> None:
    """Of support 74 % is read so and 26 % as opposition, of opposition 79 and 21 %: .53 of a move between them shows.

    Neutral is always read so: of a move from support (1 + .74) / 2, from opposition (1 + .79) / 2. What is not scored
    shows in no mean, and changes nothing.
    """
    found = judged([[74, 0, 26, 40], [0, 50, 0, 0], [21, 0, 79, 7]])
    support_neutral, support_oppose, neutral_oppose = (own.value for own in found.pairs)
    assert (support_neutral, support_oppose, neutral_oppose) == pytest.approx((0.87, 0.53, 0.895))
    assert found.overall.value == pytest.approx((0.74 + 1 + 0.79 - 1) / 2)
    assert found.texts == (100, 50, 100)
    assert found.overall.low < found.overall.value < found.overall.high


def test_a_stance_that_is_hardly_read_leaves_its_moves_unknown() -> None:
    found = judged([[30, 0, 0, 0], [1, 3, 0, 40], [0, 0, 30, 0]])
    assert [math.isfinite(own.value) for own in found.pairs] == [False, True, False]
    assert found.pairs[1].value == 1 and 0 < found.pairs[1].low < 1  # all right says not that all others are
    assert math.isnan(found.overall.value)
    assert math.isnan(judged([[0, 0, 0, 9]] * 3).overall.value)


def test_intervals_hold_what_is_planted() -> None:
    """200 checks of 20 propositions x 6 texts whose judge errs by the proposition; a standard error of 0.015."""
    rng = np.random.default_rng(3)
    truth, clusters = np.tile([0, 1, 2], 40), np.repeat(np.arange(20), 6)
    held = 0
    for _ in range(200):
        right = rng.random(120) < np.repeat(rng.beta(4.2, 1.8, 20), 6)  # 70 %, correlation 1 / 7
        said = np.where(right, truth, (truth + rng.integers(1, 3, 120)) % 3)
        found = attenuation(truth, np.eye(3)[said], clusters).overall  # (3 x .7 - 1) / 2
        held += found.low <= 0.55 <= found.high
    assert held / 200 > 0.9


def test_a_drift_that_is_shown_by_half_was_twice_as_large() -> None:
    assert str(undone(0.13, Estimate(0.5, 0.4, 0.65))) == "0.260 [0.200, 0.325]"
    assert undone(0.6, Estimate(0.5, 0.4, 0.65)).value == 1
    assert math.isnan(undone(0.13, Estimate(0.5, 0.05, 0.95)).value)
    assert math.isnan(undone(0.13, Estimate(math.nan, math.nan, math.nan)).value)
