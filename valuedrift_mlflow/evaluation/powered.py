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
from valuedrift_mlflow.statistics.axes import holm
from valuedrift_mlflow.statistics.intervals import ALPHA
from valuedrift_mlflow.statistics.prediction_powered import Powered, Sample, powered_drift, powered_stances
from valuedrift_mlflow.statistics.units import FEW_UNITS
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MARGIN, MOVED, verdicts

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"


@dataclass(frozen=True)
class PoweredEvaluation:
    """What an evaluation comes to with people's labels, by measurement; None where one has too few labels.

    ``drift`` is from the first measurement, None where that has no labels. ``p_adjusted`` (C, T) are of "the topic has
    not moved", in one family of all measurements and topics (Holm 1979), and ``verdict`` (C, T) what follows from them
    and from the intervals of the drift, as without labels; NaN and "cannot tell" where there is no drift.
    """

    labels: HumanLabels
    topics: tuple[str, ...]
    steps: tuple[int, ...]
    stances: tuple[Powered | None, ...]
    drift: tuple[Powered | None, ...]
    p_adjusted: NDArray[np.float64]
    verdict: NDArray[np.str_]

    def metrics(self, at: int = -1) -> dict[str, float]:
        """``ppi/...`` of one measurement, and how far the labels moved the estimate: ``labels/...``."""
        metrics = {"labels/count": float(self.labels.count), "labels/empty_rows": float(self.labels.empty)}
        stances, drift, names = self.stances[at], self.drift[at], (*self.topics, OVERALL)
        if stances is not None:
            metrics |= by_stance("ppi/stance", names, stances.value)
            metrics["labels/moved"] = float(stances.moved[-1])
            metrics["labels/width_ratio"] = float(stances.width_ratio[-1].mean())
        if drift is not None and drift.total_variation is not None:
            metrics |= by_stance("ppi/drift_magnitude", names, drift.value)
            metrics |= {f"ppi/drift/{name}": float(drift.total_variation[row]) for row, name in enumerate(names)}
            if drift.total_variation_interval is not None:
                ends = drift.total_variation_interval
                metrics |= {f"ppi/drift_ci_low/{name}": float(ends[row, 0]) for row, name in enumerate(names)}
                metrics |= {f"ppi/drift_ci_high/{name}": float(ends[row, 1]) for row, name in enumerate(names)}
            metrics["ppi/topics_drifted"] = float((self.verdict[at] == MOVED).sum())
            metrics["ppi/topics_undecided"] = float((self.verdict[at] == CANNOT_TELL).sum())
            metrics["labels/moved_drift"] = float(drift.moved[-1])
        return finite(metrics)

    def table(self) -> pd.DataFrame:
        """One row for each step, topic and stance: the table ``value_drift_labels.json``."""
        import pandas as pd

        rows = [
            {"step": step, "topic": topic, "stance": stance.value, **_cells(stances, drift, row, column)}
            | (self._judgement(place, row) if drift is not None else {})
            for place, (step, stances, drift) in enumerate(zip(self.steps, self.stances, self.drift, strict=True))
            if stances is not None
            for row, topic in enumerate((*self.topics, OVERALL))
            for column, stance in enumerate(STANCES)
        ]
        frame = pd.DataFrame(rows)
        return frame.astype(object).where(frame.notna(), None)

    def _judgement(self, place: int, row: int) -> dict[str, float | str]:
        """Whether a topic has moved; nothing of the mean over topics."""
        if row == len(self.topics):
            return {}
        return {"p_adjusted": float(self.p_adjusted[place, row]), "verdict": str(self.verdict[place, row])}


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


def powered_evaluation(
    labels: HumanLabels, measurements: Sequence[Measurement], seed: int, margin: float = MARGIN
) -> PoweredEvaluation:
    """Stances of every measurement that has labels, and their drift from the first one where that has labels too."""
    topics = measurements[0].suite.topics
    samples = [sample_of(one, own) for one, own in zip(measurements, labels.by_measurement, strict=True)]
    stances = [_defined(powered_stances(sample, len(topics))) for sample in samples]
    drift: list[Powered | None] = [None]
    for sample, own in zip(samples[1:], stances[1:], strict=True):
        # Without labels on both ends there is nothing to take the judge's errors off a change with.
        both = stances[0] is not None and own is not None
        drift.append(_defined(powered_drift(samples[0], sample, len(topics), seed=seed)) if both else None)
    steps = tuple(one.step for one in measurements)
    p_adjusted, verdict = _verdicts(drift, len(topics), margin)
    return PoweredEvaluation(labels, topics, steps, tuple(stances), tuple(drift), p_adjusted, verdict)


def _verdicts(
    drift: Sequence[Powered | None], topics: int, margin: float
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """(C, T) adjusted p-values and verdicts on every topic at every measurement."""
    p_value, high = np.full((len(drift), topics), np.nan), np.full((len(drift), topics), np.nan)
    for place, own in enumerate(drift):
        if own is not None and own.total_variation_interval is not None:
            # The surest of three stances, held against three tests (Bonferroni).
            least = np.where(np.isnan(own.p_value), np.inf, own.p_value)[:-1].min(axis=1)
            least[own.clusters[:-1] < FEW_UNITS] = np.inf
            p_value[place] = np.where(np.isfinite(least), np.minimum(3 * least, 1), np.nan)
            high[place] = own.total_variation_interval[:-1, 1]
    adjusted = holm(p_value)
    with np.errstate(invalid="ignore"):
        return adjusted, verdicts(adjusted <= ALPHA, high, margin)


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
