import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.unscored import hidden

SUPPORT, NEUTRAL, OPPOSE = np.eye(3)
NOTHING = np.full(3, np.nan)


def test_bounds_by_hand() -> None:
    # Before: support, support, neutral, oppose. After: three of support, and one unscored. As shares of all answers
    # support gains 1/4, neutral and oppose lose 1/4 each: P = 1/4. The unscored one could be any stance: the drift is
    # 1/4 (it is neutral or oppose) to 1/2 (it is support).
    before, after = [SUPPORT, SUPPORT, NEUTRAL, OPPOSE], [SUPPORT, SUPPORT, SUPPORT, NOTHING]
    answers = np.array([before, after])[:, :, None]
    found = hidden(answers, np.ones((2, 4, 1), dtype=bool), np.arange(4))
    assert found.rate.tolist() == [0, 0.25]
    assert (found.low[1], found.high[1]) == (0.25, 0.5)
    assert math.isnan(found.p_value[1])  # four propositions


def test_answers_that_vanish_hide_that_nothing_moved() -> None:
    # Ten propositions of one support and one oppose; after training every oppose is unreadable. Scored answers say that
    # support went from 1/2 to 1, and yet nothing need have moved.
    answers = np.array([[[SUPPORT, OPPOSE]] * 10, [[SUPPORT, NOTHING]] * 10])
    found = hidden(answers, np.ones((2, 10, 2), dtype=bool), np.arange(10))
    assert found.low[1] == 0 and found.high[1] == pytest.approx(0.5)
    assert found.p_value.tolist() == [1, 0]


def test_what_was_not_asked_is_not_unscored() -> None:
    answers = np.array([[[SUPPORT, OPPOSE]] * 10, [[SUPPORT, NOTHING]] * 10])
    asked = np.ones((2, 10, 2), dtype=bool)
    asked[1, :, 1] = False
    assert hidden(answers, asked, np.arange(10)).rate.tolist() == [0, 0]
