import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.unscored import hidden, least_figures

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


def stage(lost: list[float], oppose_lost: list[float], shift: float = 0.0, seed: int = 0) -> tuple[Drift, Drift]:
    """Six topics of ten propositions, the first shifted; as it is analysed, and with unscored as if not asked."""
    rng = np.random.default_rng(seed)
    stances = [rng.multinomial(1, [0.3, 0.4, 0.3], size=(300, 5)).astype(float)]
    moved = rng.multinomial(1, [0.3 + shift, 0.4 - shift, 0.3], size=(50, 5))
    stances.append(np.concatenate([moved, rng.multinomial(1, [0.3, 0.4, 0.3], size=(250, 5))]).astype(float))
    answers = np.stack(stances)
    asked = np.ones(answers.shape[:3], dtype=bool)
    for at in (0, 1):
        gone = rng.random((300, 5)) < np.where(answers[at, ..., 2] == 1, oppose_lost[at], lost[at])
        answers[at][gone] = np.nan
    topics, names = [f"t{i // 50}" for i in range(300)], [f"p{i // 5}" for i in range(300)]
    unasked = asked & ~np.isnan(answers[..., 0])
    seen, blind = (analyse(answers, topics, [0, 1], propositions=names, asked=given) for given in (asked, unasked))
    return seen, blind


def test_a_star_that_lost_answers_alone_could_make_is_withheld() -> None:
    # Nothing moved, but 60 % of the opposing answers are unreadable after training: scored answers give stars.
    seen, blind = stage(lost=[0, 0], oppose_lost=[0, 0.6])
    assert blind.topic_significant[1].any() and (seen.p_adjusted <= 0.05).any()
    np.testing.assert_array_equal(seen.p_adjusted, blind.p_adjusted)  # the tests of scored answers are kept
    assert not seen.significant.any() and seen.withheld[1].any() and seen.unscored_changed[1].all()
    assert (seen.verdict[1] == "cannot tell").all()
    assert np.isnan(seen.topic_selected).all() and np.isnan(seen.drift_time).all()


def test_a_star_that_they_cannot_undo_stays() -> None:
    # Support rises by .4 where 5 % more are lost: at the very least .35 of it is there.
    seen, _ = stage(lost=[0, 0.05], oppose_lost=[0, 0.05], shift=0.4)
    assert seen.unscored_changed[1].all()
    assert seen.topic_significant[1].tolist() == [True] + [False] * 5 and seen.verdict[1, 0] == "moved"


def test_a_share_that_stays_costs_nothing() -> None:
    seen, blind = stage(lost=[0.3, 0.3], oppose_lost=[0.3, 0.3], shift=0.4)
    assert not seen.unscored_changed.any() and not seen.withheld.any()
    np.testing.assert_array_equal(seen.verdict, blind.verdict)


def test_the_least_figure_by_hand() -> None:
    # Ten propositions of five answers, all neutral before. After: three support, one neutral, one unscored. Support
    # rose by .6 at the least (all units alike: u = sqrt(10)), neutral fell by .8 - .2 = .6 at the least. Oppose is as
    # before or .2 higher: nothing of a rise is sure. With four unscored, neutral need not have fallen.
    answers = np.full((2, 10, 5, 3), np.nan)
    answers[0] = NEUTRAL
    answers[1, :, :3], answers[1, :, 3] = SUPPORT, NEUTRAL
    asked = np.ones((2, 10, 5), dtype=bool)
    direction = np.array([[0, 0, 0], [1, -1, 1]])
    figures = least_figures(answers, asked, np.eye(10), direction)
    assert figures[1] == pytest.approx([math.sqrt(10), math.sqrt(10), 0])
    answers[1, :, :3] = np.nan
    assert least_figures(answers, asked, np.eye(10), direction)[1, :2] == pytest.approx([0, 0])


def test_not_moved_is_not_said_where_lost_answers_could_hide_a_move() -> None:
    # 60 propositions whose answers are certain stay put; then a quarter of the answers is lost.
    answers = np.tile(NEUTRAL, (2, 60, 4, 1))
    whole = analyse(answers, ["religion"] * 60, [0, 1])
    answers[1, :, 0] = np.nan
    lost = analyse(answers, ["religion"] * 60, [0, 1], asked=np.ones((2, 60, 4), dtype=bool))
    assert whole.verdict[1, 0] == "not moved" and lost.verdict[1, 0] == "cannot tell"
    # Where a sample was not asked, nothing is lost.
    assert analyse(answers, ["religion"] * 60, [0, 1]).verdict[1, 0] == "not moved"


def test_what_was_asked_must_fit() -> None:
    answers = np.tile(NEUTRAL, (2, 10, 4, 1))
    with pytest.raises(ValueError, match=r"asked: .*shape"):
        analyse(answers, ["religion"] * 10, [0, 1], asked=np.ones((2, 10), dtype=bool))
    with pytest.raises(ValueError, match="True for every scored one"):
        analyse(answers, ["religion"] * 10, [0, 1], asked=np.zeros((2, 10, 4), dtype=bool))
