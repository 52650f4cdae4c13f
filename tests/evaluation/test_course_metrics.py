"""What a stage of real measurements is said to have come to: times, overshoot, stars that are withheld."""

import json
from collections.abc import Sequence

import numpy as np

from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.certainty import unscored_line
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.evaluation.metrics import (
    _answers,
    analyse_measurements,
    drift_metrics,
    drift_table,
    drift_time_metrics,
    topics_drifted,
)
from valuedrift_mlflow.stances import Label, Verdict
from valuedrift_mlflow.statistics.unscored import Hidden, hidden

SUITE = suite.load("vaes?topics=abortion,religion")
SAMPLES = 4
UNSCORED = Verdict(Label.UNSCORED)


def measured(
    step: int, support: float, rng: np.random.Generator, lost: float = 0.0, samples: int = SAMPLES
) -> Measurement:
    """Answers to abortion support it so often, to religion as at first; a share of the opposing ones is unscored."""
    responses = []
    for item in SUITE.items:
        own = support if item.topic == "abortion" else 0.3
        for sample in range(samples):
            drawn = rng.choice(3, p=[own, 0.7 - own, 0.3])
            unread = drawn == 2 and rng.random() < lost
            responses.append(JudgedResponse(item, sample, "", UNSCORED if unread else Verdict.of(np.eye(3)[drawn])))
    return Measurement(step, SUITE, "truth", "neutral", tuple(responses), 1.0)


def test_when_a_stance_arrived_and_how_far_it_overshot_is_told_where_it_moved() -> None:
    rng = np.random.default_rng(1)
    # Up to .65 halfway, back to .45: all of the change has come before that.
    stage = [measured(step, support, rng) for step, support in ((0, 0.1), (50, 0.65), (75, 0.6), (100, 0.45))]
    drift = analyse_measurements(stage)
    metrics = drift_time_metrics(drift)
    assert not any("religion" in name for name in metrics)
    assert 0 < metrics["drift_time/abortion/support"] <= 0.5
    table = drift_table(drift, stage)
    row = table[(table.topic == "abortion") & (table.stance == "support") & (table.step == 100)].iloc[0]
    assert 0 < row.drift_time_50 <= row.drift_time_90 <= 0.5
    assert abs(row.overshoot - 0.2) < 0.1
    assert row.drift_time_50_ci_low <= row.drift_time_50 <= row.drift_time_50_ci_high
    assert row.overshoot_ci_low <= row.overshoot <= row.overshoot_ci_high and row.overshoot_p <= 0.05
    assert row.magnitude_selected_ci_low <= row.magnitude_selected <= row.magnitude_selected_ci_high
    assert row.drift_selected <= row.drift + 1e-9 and not row.star_withheld
    still = table[(table.topic == "religion") & (table.step == 100)].iloc[0]
    assert still.drift_selected is None and still.drift_time_90 is None and still.overshoot is None
    json.dumps(table.to_dict(orient="list"), allow_nan=False)  # a table of a run is JSON


def hidden_by_unscored(measurements: Sequence[Measurement]) -> list[Hidden]:
    """What the unscored answers of each topic may hide, topic by topic from the answers alone."""
    suite = measurements[0].suite
    answers, asked = _answers(measurements)
    names = {name: number for number, name in enumerate(dict.fromkeys(item.proposition_id for item in suite.items))}
    units = np.array([names[item.proposition_id] for item in suite.items])
    topics = [suite.groups == number for number in range(len(suite.topics))]
    return [hidden(answers[:, own], asked[:, own], units[own]) for own in topics]


def test_lost_answers_cost_the_star_and_the_line_says_so() -> None:
    rng = np.random.default_rng(2)
    stage = [measured(0, 0.3, rng), measured(100, 0.3, rng, lost=1.0)]
    drift = analyse_measurements(stage)
    assert (drift.p_adjusted[1] <= 0.05).any() and topics_drifted(drift) == 0
    assert drift_metrics(drift)["drift/topics_undecided"] == 2
    said = unscored_line(drift, stage)
    assert said.startswith("the share of unscored answers has changed in all topics (all: 0% to ")
    assert "as unscored answers alone could be its cause" in said
    assert drift_table(drift, stage).star_withheld.any()
    for one, other in zip(drift.unscored, hidden_by_unscored(stage), strict=True):
        np.testing.assert_array_equal(one.rate, other.rate)
        np.testing.assert_array_equal(one.high, other.high)


def test_checkpoints_with_fewer_samples_have_lost_nothing() -> None:
    rng = np.random.default_rng(3)
    stage = [measured(0, 0.3, rng), measured(50, 0.3, rng, samples=1), measured(100, 0.3, rng)]
    drift = analyse_measurements(stage)
    assert not drift.unscored_changed.any() and unscored_line(drift, stage) == ""
