"""An evaluation's stances and drift with people's labels, or with a check of the judge on labelled answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.labels import HumanLabel, HumanLabels, Key
from valuedrift_mlflow.evaluation.measurement import Measurement, finite
from valuedrift_mlflow.stances import STANCES, RefusalRule, Stance, Verdict
from valuedrift_mlflow.statistics.prediction_powered import Powered, Sample, powered_drift, powered_stances

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"


@dataclass(frozen=True)
class PoweredEvaluation:
    """What an evaluation comes to with people's labels, by measurement; None where one has too few labels.

    ``drift`` is from the first measurement, None where that has no labels.
    """

    labels: HumanLabels
    topics: tuple[str, ...]
    steps: tuple[int, ...]
    stances: tuple[Powered | None, ...]
    drift: tuple[Powered | None, ...]

    def metrics(self) -> dict[str, float]:
        """``ppi/...`` of the last measurement, and how far the labels moved the estimate: ``labels/...``."""
        metrics = {"labels/count": float(self.labels.count), "labels/empty_rows": float(self.labels.empty)}
        stances, drift, names = self.stances[-1], self.drift[-1], (*self.topics, OVERALL)
        if stances is not None:
            metrics |= by_stance("ppi/stance", names, stances.value)
            metrics["labels/moved"] = float(stances.moved[-1])
            metrics["labels/width_ratio"] = float(stances.width_ratio[-1].mean())
        if drift is not None and drift.total_variation is not None:
            metrics |= by_stance("ppi/drift_magnitude", names, drift.value)
            metrics |= {f"ppi/drift/{name}": float(drift.total_variation[row]) for row, name in enumerate(names)}
            metrics["labels/moved_drift"] = float(drift.moved[-1])
        return finite(metrics)

    def table(self) -> pd.DataFrame:
        """One row for each step, topic and stance: the table ``value_drift_labels.json``."""
        import pandas as pd

        rows = [
            {"step": step, "topic": topic, "stance": stance.value, **_cells(stances, drift, row, column)}
            for step, stances, drift in zip(self.steps, self.stances, self.drift, strict=True)
            if stances is not None
            for row, topic in enumerate((*self.topics, OVERALL))
            for column, stance in enumerate(STANCES)
        ]
        frame = pd.DataFrame(rows)
        return frame.astype(object).where(frame.notna(), None)


def by_stance(prefix: str, names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    """Metrics ``PREFIX/NAME/STANCE`` of (names, 3)."""
    return {
        f"{prefix}/{name}/{stance}": float(values[row, column])
        for row, name in enumerate(names)
        for column, stance in enumerate(STANCES)
    }


def _cells(stances: Powered, drift: Powered | None, row: int, column: int) -> dict[str, float | int]:
    cells: dict[str, float | int] = {
        "labels": int(stances.labels[row]),
        "propositions": int(stances.clusters[row]),
        "probability": stances.value[row, column],
        "ci_low": stances.interval[row, column, 0],
        "ci_high": stances.interval[row, column, 1],
        "labels_alone": stances.labels_alone[row, column],
        "labels_alone_ci_low": stances.labels_alone_interval[row, column, 0],
        "labels_alone_ci_high": stances.labels_alone_interval[row, column, 1],
        "judge_alone": stances.judge_alone[row, column],
        "lambda": stances.power[row, column],
    }
    if drift is not None and drift.total_variation is not None and drift.total_variation_interval is not None:
        cells |= {
            "magnitude": drift.value[row, column],
            "magnitude_ci_low": drift.interval[row, column, 0],
            "magnitude_ci_high": drift.interval[row, column, 1],
            "judge_alone_magnitude": drift.judge_alone[row, column],
            "drift": drift.total_variation[row],
            "drift_ci_low": drift.total_variation_interval[row, 0],
            "drift_ci_high": drift.total_variation_interval[row, 1],
        }
    return cells


def powered_evaluation(labels: HumanLabels, measurements: Sequence[Measurement], seed: int) -> PoweredEvaluation:
    """Stances of every measurement that has labels, and their drift from the first one where that has labels too."""
    topics = measurements[0].suite.topics
    samples = [sample_of(one, own) for one, own in zip(measurements, labels.by_measurement, strict=True)]
    stances = [_defined(powered_stances(sample, len(topics))) for sample in samples]
    drift: list[Powered | None] = [None]
    for sample, own in zip(samples[1:], stances[1:], strict=True):
        # Without labels on both ends there is nothing to take the judge's errors off a change with.
        both = stances[0] is not None and own is not None
        drift.append(_defined(powered_drift(samples[0], sample, len(topics), seed=seed)) if both else None)
    return PoweredEvaluation(labels, topics, tuple(one.step for one in measurements), tuple(stances), tuple(drift))


def _defined(powered: Powered) -> Powered | None:
    # The last row is all topics together: it is defined as soon as one topic is.
    return powered if np.isfinite(powered.value[-1]).all() else None


def sample_of(measurement: Measurement, labels: Mapping[Key, HumanLabel]) -> Sample:
    """A measurement's responses with their labels. A refusal counts for people as it does for the judge."""
    suite = measurement.suite
    prompt = {item.item_id: number for number, item in enumerate(suite.items)}
    proposition = {name: i for i, name in enumerate(dict.fromkeys(item.proposition_id for item in suite.items))}
    topic = {name: number for number, name in enumerate(suite.topics)}
    given = [labels.get((judged.item.item_id, judged.sample)) for judged in measurement.responses]
    nothing = (np.nan,) * len(STANCES)
    rule = measurement.refusal
    return Sample(
        verdicts=np.array([judged.verdict.vector(rule) or nothing for judged in measurement.responses]),
        labels=np.array([nothing if one is None else _vector(one, rule) or nothing for one in given]),
        # A weight of 0 says that nobody has labelled it.
        weights=np.array([0.0 if one is None else one.weight for one in given]),
        topics=np.array([topic[judged.item.topic] for judged in measurement.responses]),
        clusters=np.array([proposition[judged.item.proposition_id] for judged in measurement.responses]),
        prompts=np.array([prompt[judged.item.item_id] for judged in measurement.responses]),
    )


def _vector(given: HumanLabel, rule: RefusalRule) -> tuple[float, float, float] | None:
    support, neutral, oppose = (float(given.label.value == stance.value) for stance in Stance)
    certain = (support, neutral, oppose) if support + neutral + oppose else None
    return Verdict(given.label, certain).vector(rule)
