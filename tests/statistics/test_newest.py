"""What a training tells of its newest checkpoint is what one analysis of all its checkpoints tells of it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.drift import Drift, analyse
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


def analysed(answers: NDArray[np.float64], asked: NDArray[np.bool_], interval: Interval, *, newest: bool) -> Drift:
    steps = range(0, 10 * len(answers), 10)
    return analyse(answers, TOPICS, steps, propositions=NAMES, interval=interval, asked=asked, newest=newest)


@pytest.mark.parametrize("interval", ["propositions", "prompts"])
def test_the_newest_checkpoint_is_what_it_is_among_all(interval: Interval) -> None:
    answers, asked = stage(9)
    for so_far in range(1, 10):
        whole, newest = (analysed(answers[:so_far], asked[:so_far], interval, newest=one) for one in (False, True))
        told = [0, so_far - 1][-len(newest.steps) :]
        for name in {field.name for field in fields(Drift)} - OF_THE_COURSE - {"unscored"}:
            expected, found = getattr(whole, name), getattr(newest, name)
            expected = expected[told] if isinstance(expected, np.ndarray) else expected
            np.testing.assert_array_equal(found, expected, err_msg=f"{name} of {so_far}")  # to the last digit
        for one, other in zip(newest.unscored, whole.unscored, strict=True):
            np.testing.assert_array_equal(one.high, other.high[told])
            np.testing.assert_array_equal(one.p_value, other.p_value[told])
    assert newest.significant[-1].any() and whole.withheld.any()  # so that there was something to tell


def test_of_the_newest_checkpoint_alone_no_course_is_told() -> None:
    newest = analysed(*stage(4), "propositions", newest=True)
    assert newest.steps.tolist() == [0, 30]
    assert np.isnan(newest.arrival).all() and np.isnan(newest.overshoot).all()
