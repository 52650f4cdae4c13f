"""Planted truths that net drift and axis shift tell apart, in measurements as a model gives them."""

from dataclasses import replace

import numpy as np
import pytest

from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.axis_metrics import axis_rows, axis_shifts, axis_table, metrics_of_axes
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.evaluation.metrics import analyse_measurements, drift_metrics, topics_drifted
from valuedrift_mlflow.stances import Verdict
from valuedrift_mlflow.suite import Suite

SAMPLES = 5
VAES = suite.load("vaes?topics=abortion,gun_control,religion")
BARE = replace(VAES, items=tuple(replace(item, keys=()) for item in VAES.items))
NEUTRAL = 0.2


def measured(asked: Suite, leaning: np.ndarray, step: int, rng: np.random.Generator) -> Measurement:
    """Answers whose stances are drawn with the leaning of each prompt, read without error."""
    shares = np.stack([(1 - NEUTRAL + leaning) / 2, np.full_like(leaning, NEUTRAL), (1 - NEUTRAL - leaning) / 2], -1)
    responses = [
        JudgedResponse(item, sample, "", Verdict.of(np.eye(3)[rng.choice(3, p=own)]))
        for item, own in zip(asked.items, shares, strict=True)
        for sample in range(SAMPLES)
    ]
    return Measurement(step, asked, "truth", "neutral", tuple(responses), 1.0)


def numbers(asked: Suite, change: np.ndarray, seed: int = 0) -> tuple[dict[str, float], int]:
    """The metrics of a change in the leaning of every prompt, and how many topics have drifted significantly."""
    rng = np.random.default_rng(seed)
    before, after = (measured(asked, own, step, rng) for step, own in enumerate((np.zeros_like(change), change)))
    drift = analyse_measurements([before, after])
    return drift_metrics(drift) | metrics_of_axes(axis_shifts([before, after], [0, 1])), topics_drifted(drift)


def directions(asked: Suite, topic: str) -> np.ndarray:
    """+1 or -1 for every prompt of a topic, by its own axis, 0 for the others."""
    return np.array([item.keys[0].direction if item.topic == topic else 0 for item in VAES.items])


# What an answer of a prompt varies by is 0.8; a mean of 50 prompts of 5 answers by 0.06, its change by 0.08.
ERROR = 0.16


def test_every_prompt_of_a_topic_moves_to_one_side_and_net_drift_does_not_see_it() -> None:
    found, drifted = numbers(VAES, 0.45 * directions(VAES, "abortion"))
    assert found["axis_shift/abortion"] == pytest.approx(0.45, abs=ERROR)
    assert found["axes/shifted"] == 2  # and GAL-TAN, whose - end is where free choice lies
    assert found["axis_shift/gal_tan"] < -0.1
    assert abs(found["axis_shift/religion"]) < ERROR
    assert found["drift/abortion"] < 0.1  # sampling noise alone makes it 0.05
    assert drifted == 0
    assert found["axes/shift_bound"] > 0.45


def test_agreeing_a_little_more_with_everything_is_net_drift_and_no_axis_shift() -> None:
    found, drifted = numbers(VAES, np.full(len(VAES.items), 0.4))
    assert drifted == 3
    assert found["drift/overall"] == pytest.approx(0.2, abs=0.06)  # 0.2 from oppose to support is 0.4 of leaning
    assert found["axes/shifted"] == 0
    assert all(abs(found[f"axis_shift/{axis}"]) < ERROR for axis in VAES.axes)


def test_nothing_moved() -> None:
    found, drifted = numbers(VAES, np.zeros(len(VAES.items)))
    assert (found["axes/shifted"], drifted) == (0, 0)
    assert found["axes/shift_bound"] < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_a_suite_without_keys_has_the_axis_that_its_answers_show(seed: int) -> None:
    moved = 0.45 * (directions(VAES, "abortion") + directions(VAES, "religion") + directions(VAES, "gun_control"))
    found, _ = numbers(BARE, moved, seed)
    assert not [key for key in found if key.startswith("axis/")]  # it has no position
    assert 0.2 < found["axis_shift/data"] <= 0.45 + ERROR
    assert found["axes/shifted"] == 1
    still, _ = numbers(BARE, np.zeros(len(VAES.items)), seed)
    assert abs(still["axis_shift/data"]) < ERROR
    assert still["axes/shifted"] == 0


def test_a_prompt_for_each_proposition_is_enough_where_it_is_answered_several_times() -> None:
    alone = replace(BARE, items=tuple(item for item in BARE.items if item.phrasing == "direct"))
    moved = np.array([0.7 * item.keys[0].direction for item in VAES.items if item.phrasing == "direct"])
    found, _ = numbers(alone, moved)
    assert found["axis_shift/data"] > 0.3
    assert found["axes/shifted"] == 1


def test_the_position_is_the_mean_of_the_directed_leanings() -> None:
    rng = np.random.default_rng(0)
    measurement = measured(VAES, 0.3 * directions(VAES, "gun_control"), 0, rng)
    found = metrics_of_axes(axis_shifts([measurement], [0]), compared=False)
    leaning = measurement.values[:, 0] - measurement.values[:, 2]
    assert found["axis/gun_control"] == pytest.approx((directions(VAES, "gun_control") * leaning).sum() / 50)
    assert set(found) == {f"axis/{axis}" for axis in VAES.axes}


def test_the_tables_have_the_ends_of_each_axis_and_mark_what_moved() -> None:
    rng = np.random.default_rng(0)
    change = -0.6 * directions(VAES, "abortion")
    two = [measured(VAES, own, step, rng) for step, own in enumerate((np.zeros_like(change), change))]
    shifts = axis_shifts(two, [0, 1])
    table = axis_table(shifts, two[-1])
    assert len(table) == 2 * len(VAES.axes)
    [last] = table[(table.step == 1) & (table.axis == "abortion")].to_dict("records")
    assert (last["minus"], last["plus"]) == ("protection of unborn life", "freedom to choose")
    assert last["significant"] and last["shift_ci_low"] < last["shift"] < last["shift_ci_high"] < 0
    columns, rows = axis_rows(shifts, two[-1])
    shown = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert shown["abortion"]["axis shift [95 % interval]"].startswith("-0.")
    assert shown["abortion"]["axis shift [95 % interval]"].endswith(" *")
    assert not shown["religion"]["axis shift [95 % interval]"].endswith("*")
