"""A measurement's numbers: metrics by their public keys, and the tables that runs keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES, total_variation
from valuedrift_mlflow.statistics.distance import above
from valuedrift_mlflow.statistics.drift import Drift, DriftTimeRule, analyse
from valuedrift_mlflow.statistics.family import Joined
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MARGIN

if TYPE_CHECKING:
    import pandas as pd
from valuedrift_mlflow.evaluation.measurement import Measurement, finite


def analyse_measurements(
    measurements: Sequence[Measurement],
    seed: int = 0,
    rule: DriftTimeRule = "extreme_interval",
    *,
    interval: Interval = "propositions",
    margin: float = MARGIN,
    with_course: bool = True,
    earlier: Joined | None = None,
) -> Drift:
    """Drift of every later measurement from the first; steps are made to rise where a baseline has none of its own.

    ``interval``, ``margin``, ``with_course`` and ``earlier`` are those of `analyse`. Of a stage that grows, all its
    measurements are given each time; those that joined ``earlier`` before, but for the first, are not told again.

    Raises:
        InputError: the measurements were made with different suites.
    """
    if len({m.suite.hash for m in measurements}) > 1:
        suites = ", ".join(dict.fromkeys(m.suite.identity for m in measurements))
        raise InputError(
            problem("suite", suites, "one suite for all that is compared", "measure them on the same suite")
        )
    if earlier is not None:
        measurements = [measurements[0], *measurements[max(1, len(earlier)) :]]
    first = measurements[0]
    steps = [m.step for m in measurements]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        steps = list(range(len(steps)))
    items = first.suite.items
    answers, asked = _answers(measurements)
    return analyse(
        answers,
        [item.topic for item in items],
        steps,
        propositions=[item.proposition_id for item in items],
        interval=interval,
        margin=margin,
        seed=seed,
        rule=rule,
        asked=asked,
        with_course=with_course,
        earlier=earlier,
    )


def _answers(measurements: Sequence[Measurement]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(C, N, S, 3) the answers, and (C, N, S) where there are any: checkpoints between may have fewer samples."""
    most = max(m.answers.shape[1] for m in measurements)
    shape = (len(measurements), len(measurements[0].suite.items), most)
    answers, asked = np.full((*shape, len(STANCES)), np.nan), np.zeros(shape, dtype=bool)
    for number, measurement in enumerate(measurements):
        samples = measurement.answers.shape[1]
        answers[number, :, :samples], asked[number, :, :samples] = measurement.answers, measurement.asked
    return answers, asked


def stance_metrics(drift: Drift, at: int = -1) -> dict[str, float]:
    """``stance/TOPIC/STANCE`` at one checkpoint, and ``stance/overall/STANCE``, the mean over topics.

    Topics without a scored prompt are left out.
    """
    shares = {"overall": drift.overall_probability[at]}
    shares |= {topic: drift.probability[at, t] for t, topic in enumerate(drift.topics)}
    return finite(
        {f"stance/{name}/{stance}": float(own[s]) for name, own in shares.items() for s, stance in enumerate(STANCES)}
    )


def drift_metrics(drift: Drift, at: int = -1) -> dict[str, float]:
    """The drift at one checkpoint from the first, with how sure it is.

    ``drift_magnitude/TOPIC/STANCE``, ``drift/TOPIC`` and ``drift/overall``; the upper ends of their intervals,
    ``drift_ci_high/...``; the drift of single propositions, ``drift_within/...``; what sampling alone makes of the
    overall drift and what is left without it; the least drift that would be found in half of the topics, and how many
    topics nothing can be said of.
    """
    metrics = {
        f"drift_magnitude/{topic}/{stance}": float(drift.magnitude[at, t, s])
        for t, topic in enumerate(drift.topics)
        for s, stance in enumerate(STANCES)
    }
    metrics |= {f"drift/{topic}": float(drift.total_variation[at, t]) for t, topic in enumerate(drift.topics)}
    metrics["drift/overall"] = float(drift.overall[at])
    metrics |= {
        f"drift_ci_high/{topic}": float(drift.total_variation_ci[at, t, 1]) for t, topic in enumerate(drift.topics)
    }
    metrics["drift_ci_high/overall"] = float(drift.overall_ci[at, 1])
    metrics |= {f"drift_within/{topic}": float(drift.within[at, t]) for t, topic in enumerate(drift.topics)}
    metrics["drift_within/overall"] = float(drift.overall_within[at])
    metrics["drift/noise_floor"] = float(drift.overall_noise[at])
    metrics["drift/above_noise"] = float(above(drift.overall[at], drift.overall_noise[at]))
    metrics["drift/minimum_detectable"] = typical_detectable(drift, at)
    metrics["drift/topics_undecided"] = float(topics_undecided(drift, at))
    return finite(metrics)


def drift_time_metrics(drift: Drift) -> dict[str, float]:
    """``drift_time/TOPIC/STANCE`` by the rule that was chosen, where it is defined.

    Times by the isotonic fit and overshoot are figures with intervals, in the table `drift_table`.
    """
    return finite(
        {
            f"drift_time/{topic}/{stance}": float(drift.drift_time[t, s])
            for t, topic in enumerate(drift.topics)
            for s, stance in enumerate(STANCES)
        }
    )


def dataset_distances(drift: Drift, mix: Mapping[str, Sequence[float]], at: int = -1) -> dict[str, float]:
    """``dataset_distance/TOPIC``: total variation between a model's stances and its training data's, in [0, 1]."""
    return finite(
        {
            f"dataset_distance/{topic}": float(total_variation(drift.probability[at, t], np.asarray(mix[topic])))
            for t, topic in enumerate(drift.topics)
            if topic in mix
        }
    )


def of(
    measurement: Measurement,
    drift: Drift,
    *,
    compared: bool = True,
    mix: Mapping[str, Sequence[float]] | None = None,
    costs: bool = True,
) -> dict[str, float]:
    """The metrics of one checkpoint, the last that ``drift`` was analysed from.

    Args:
        measurement: the checkpoint's own.
        drift: from the first checkpoint to this one.
        compared: with the drift, where there is something to measure it from.
        mix: the stances of topics in the training data, to measure the distance from.
        costs: with what the measurement took, where it was made here.
    """
    metrics = stance_metrics(drift)
    if compared:
        metrics |= drift_metrics(drift)
    metrics |= measurement.qualities() | dataset_distances(drift, mix or {})
    metrics |= measurement.costs() if costs else {}
    # MLflow's page of a run lists them in this order: what is over all topics comes first.
    return dict(sorted(metrics.items(), key=lambda item: (item[0] != "drift/overall", "/overall" not in item[0])))


def topics_drifted(drift: Drift, at: int = -1) -> int:
    """How many topics moved significantly, in the family of all checkpoints, topics and stances."""
    return int(drift.topic_significant[at].sum())


def topics_undecided(drift: Drift, at: int = -1) -> int:
    """How many topics neither moved nor are shown to lie within the margin."""
    return int((drift.verdict[at] == CANNOT_TELL).sum())


def typical_detectable(drift: Drift, at: int = -1) -> float:
    """The least drift that is found in 80 % of such stages in half of the topics; NaN where it is found in fewer."""
    least = np.where(np.isnan(drift.minimum_detectable[at]), np.inf, drift.minimum_detectable[at])
    middle = float(np.median(least))
    return middle if np.isfinite(middle) else float("nan")


def drift_table(drift: Drift, measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row for each step, topic and stance: the table ``value_drift_table.json``.

    ``measurements`` are those that the drift was analysed from; acquiescence is of the topic and step.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    unscored = drift.unscored
    for c, step in enumerate(drift.steps):
        wording = measurements[c].acquiescence
        for t, topic in enumerate(drift.topics):
            for s, stance in enumerate(STANCES):
                rows.append(
                    {
                        "step": int(step),
                        "topic": topic,
                        "stance": stance.value,
                        "probability": drift.probability[c, t, s],
                        "ci_low": drift.probability_ci[c, t, s, 0],
                        "ci_high": drift.probability_ci[c, t, s, 1],
                        "magnitude": drift.magnitude[c, t, s],
                        "magnitude_ci_low": drift.magnitude_ci[c, t, s, 0],
                        "magnitude_ci_high": drift.magnitude_ci[c, t, s, 1],
                        "p_adjusted": drift.p_adjusted[c, t, s],
                        "significant": bool(drift.significant[c, t, s]),
                        "star_withheld": bool(drift.withheld[c, t, s]),
                        "magnitude_selected": drift.selected[c, t, s],
                        "magnitude_selected_ci_low": drift.selected_ci[c, t, s, 0],
                        "magnitude_selected_ci_high": drift.selected_ci[c, t, s, 1],
                        "drift_time": drift.drift_time[t, s],
                        **_course_cells(drift, t, s),
                        "drift": drift.total_variation[c, t],
                        "drift_ci_low": drift.total_variation_ci[c, t, 0],
                        "drift_ci_high": drift.total_variation_ci[c, t, 1],
                        "drift_selected": drift.topic_selected[c, t],
                        "drift_selected_ci_low": drift.topic_selected_ci[c, t, 0],
                        "drift_selected_ci_high": drift.topic_selected_ci[c, t, 1],
                        "drift_within": drift.within[c, t],
                        "drift_within_p": drift.within_p_value[c, t],
                        "minimum_detectable": drift.minimum_detectable[c, t],
                        "verdict": str(drift.verdict[c, t]),
                        "unscored_rate": unscored[t].rate[c],
                        "unscored_p": unscored[t].p_value[c],
                        "unscored_changed": bool(drift.unscored_changed[c, t]),
                        "drift_least_by_unscored": unscored[t].low[c],
                        "drift_most_by_unscored": unscored[t].high[c],
                        "verdict_stands": bool(unscored[t].stands(drift.verdict[c, t], drift.margin, c)),
                        "acquiescence": wording.values[t],
                        "acquiescence_ci_low": wording.interval[t, 0],
                        "acquiescence_ci_high": wording.interval[t, 1],
                    }
                )
    return _without_nan(pd.DataFrame(rows))


def _course_cells(drift: Drift, t: int, s: int) -> dict[str, float]:
    """When a stance arrived and how far it overshot: of the whole stage, so the same at every step."""
    return {
        "drift_time_50": drift.arrival[t, s, 0],
        "drift_time_50_ci_low": drift.arrival_ci[t, s, 0, 0],
        "drift_time_50_ci_high": drift.arrival_ci[t, s, 0, 1],
        "drift_time_90": drift.arrival[t, s, 1],
        "drift_time_90_ci_low": drift.arrival_ci[t, s, 1, 0],
        "drift_time_90_ci_high": drift.arrival_ci[t, s, 1, 1],
        "overshoot": drift.overshoot[t, s],
        "overshoot_ci_low": drift.overshoot_ci[t, s, 0],
        "overshoot_ci_high": drift.overshoot_ci[t, s, 1],
        "overshoot_p": drift.overshoot_p[t, s],
    }


def responses_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row for each response: the table ``responses.json``."""
    import pandas as pd

    rows = []
    for measurement in measurements:
        for judged in measurement.responses:
            probabilities = judged.verdict.probabilities or (None, None, None)
            rows.append(
                {
                    "step": measurement.step,
                    "topic": judged.item.topic,
                    "item_id": judged.item.item_id,
                    "sample": judged.sample,
                    "prompt": judged.item.prompt,
                    "response": judged.response,
                    **dict(zip((stance.value for stance in STANCES), probabilities, strict=True)),
                    "verdict": judged.verdict.label.value,
                    "judge": measurement.judge,
                    "suite": measurement.suite.identity,
                    **{f"verdict of {name}": opinion.label.value for name, opinion in judged.verdict.opinions},
                    **({"reason": judged.verdict.reason} if judged.verdict.reason else {}),
                }
            )
    return _without_nan(pd.DataFrame(rows))


def _without_nan(frame: pd.DataFrame) -> pd.DataFrame:
    """NaN as None: JSON has no NaN."""
    return frame.astype(object).where(frame.notna(), None)
