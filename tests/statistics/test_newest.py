"""What a training tells of its newest checkpoint is what one analysis of all its checkpoints tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.family import KEPT, Joined
from valuedrift_mlflow.statistics.units import Interval

TOPICS = ["religion"] * 40 + ["abortion"] * 60  # 8 propositions, whose flips are looked at one by one, and 20
NAMES = [f"proposition {number // (5 if number < 40 else 3)}" for number in range(100)]
OF_THE_COURSE = {"drift_time", "arrival", "arrival_ci", "overshoot", "overshoot_ci", "overshoot_p"}


def stage(checkpoints: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Answers that move to support, of which more and more are unscored; fewer samples between the ends."""
    rng = np.random.default_rng(3)
    answers, asked = np.full((checkpoints, 100, 2, 3), np.nan), np.ones((checkpoints, 100, 2), dtype=bool)
    for number in range(checkpoints):
        answers[number] = rng.dirichlet((0.4 + number / 3, 0.6, 0.4), (100, 2))
        answers[number][rng.random((100, 2)) < number / 30] = np.nan
    asked[1:-1, :, 1], answers[1:-1, :, 1] = False, np.nan
    answers[2, :40] = np.nan  # a topic without an estimate
    return answers, asked


def analysed(
    answers: NDArray[np.float64],
    asked: NDArray[np.bool_],
    interval: Interval,
    steps: Sequence[int],
    tests: Joined | None = None,
) -> Drift:
    given = {"propositions": NAMES, "interval": interval, "asked": asked[steps], "earlier": tests, "with_course": False}
    return analyse(answers[steps], TOPICS, steps, **given)


@pytest.mark.parametrize("kept", [0, 2 * 6 * 2000, KEPT])  # nothing, the first two, all
@pytest.mark.parametrize("interval", ["propositions", "prompts"])
def test_the_newest_checkpoint_is_what_it_is_among_all(interval: Interval, kept: int) -> None:
    answers, asked = stage(9)
    tests = Joined(kept)
    for newest in range(9):
        whole = analysed(answers, asked, interval, range(newest + 1))
        found = analysed(answers, asked, interval, sorted({0, newest}), tests)
        told = sorted({0, newest})
        for name in {field.name for field in fields(Drift)} - OF_THE_COURSE - {"unscored"}:
            expected, own = getattr(whole, name), getattr(found, name)
            expected = expected[told] if isinstance(expected, np.ndarray) else expected
            np.testing.assert_array_equal(own, expected, err_msg=f"{name} at {newest}")  # to the last digit
        for one, other in zip(found.unscored, whole.unscored, strict=True):
            np.testing.assert_array_equal(one.high, other.high[told])
            np.testing.assert_array_equal(one.p_value, other.p_value[told])
    assert found.significant[-1].any() and whole.withheld.any()  # so that there was something to tell


def test_several_checkpoints_may_join_at_once() -> None:
    answers, asked = stage(6)
    tests = Joined()
    analysed(answers, asked, "propositions", [0, 1, 2], tests)
    found = analysed(answers, asked, "propositions", [0, 3, 4, 5], tests)
    whole = analysed(answers, asked, "propositions", range(6))
    assert len(tests) == 6
    np.testing.assert_array_equal(found.p_adjusted, whole.p_adjusted[[0, 3, 4, 5]])


def test_tests_of_another_stage_are_refused() -> None:
    answers, asked = stage(3)
    tests = Joined()
    analysed(answers, asked, "propositions", [0, 1], tests)
    with pytest.raises(InputError, match=r"2 topics, 2000 flips.*1 topics"):
        analyse(answers[:, :40], TOPICS[:40], range(3), propositions=NAMES[:40], asked=asked[:, :40], earlier=tests)
