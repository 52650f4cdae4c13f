"""An evaluation's stances and drift, the errors taken off that its judge makes on labelled answers of elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.confusion import column, confusion
from valuedrift_mlflow.evaluation.measurement import Measurement, finite
from valuedrift_mlflow.evaluation.powered import OVERALL, by_stance
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.tables import read_table
from valuedrift_mlflow.stances import STANCES, Label, RefusalRule
from valuedrift_mlflow.statistics.adjusted import (
    Adjusted,
    AdjustedDrift,
    Readings,
    adjusted_drift,
    adjusted_stances,
)

if TYPE_CHECKING:
    import pandas as pd

_RUN = "runs:/"


@dataclass(frozen=True)
class JudgeErrors:
    """How often a judge gives which verdict to which true stance; ``counts`` (3, 4), the last column is no stance."""

    uri: str
    counts: NDArray[np.int64]


def is_check(uri: str) -> bool:
    """Whether a URI names a run of ``check_judge``."""
    run_id = uri.removeprefix(_RUN).strip("/")
    return uri.startswith(_RUN) and "/" not in run_id and tracking.role_of(run_id) == "judge_check"


def load_errors(uri: str, judge: str, rule: RefusalRule) -> JudgeErrors:
    """The errors of a judge in a run of ``check_judge``.

    Raises:
        InputError: the run has no table of verdicts, or those of another judge, or lacks a stance.
    """
    file = tracking.downloaded(f"{uri.rstrip('/')}/judged.json", "labels", "a run of check_judge")
    frame = read_table(file, f"labels {uri}", "a table that check_judge has logged", otherwise=".json")
    checked = str(frame["judge"].iloc[0])
    if checked != judge:
        mend = "check this judge: valuedrift check-judge"
        raise InputError(problem(f"labels {uri}", f"a check of {checked}", f"one of {judge}", mend))
    pairs = zip(map(Label, frame["label"]), map(Label, frame["verdict"]), strict=True)
    counts = confusion(pairs, rule)
    if (counts.sum(axis=1) == 0).any():
        found = ", ".join(str(count) for count in counts.sum(axis=1))
        raise InputError(problem(f"labels {uri}", f"{found} answers of the three stances", "at least one of each"))
    return JudgeErrors(uri, counts)


@dataclass(frozen=True)
class AdjustedEvaluation:
    """What an evaluation comes to, by measurement, if its judge errs here as in a check: conditional on that set.

    ``drift`` is from the first measurement, which has none.
    """

    errors: JudgeErrors
    topics: tuple[str, ...]
    steps: tuple[int, ...]
    stances: tuple[Adjusted, ...]
    drift: tuple[AdjustedDrift | None, ...]

    def metrics(self, at: int = -1) -> dict[str, float]:
        """``adjusted/...`` of one measurement; its drift where there is an earlier one."""
        names, drift = (*self.topics, OVERALL), self.drift[at]
        metrics = by_stance("adjusted/stance", names, self.stances[at].value)
        if drift is not None:
            metrics |= by_stance("adjusted/drift_magnitude", names, drift.value)
            metrics |= {f"adjusted/drift/{name}": float(drift.total_variation[row]) for row, name in enumerate(names)}
        return finite(metrics)

    def table(self) -> pd.DataFrame:
        """One row for each step, topic and stance: the table ``value_drift_adjusted.json``."""
        import pandas as pd

        rows = [
            {
                "step": step,
                "topic": topic,
                "stance": stance.value,
                "probability": own.value[row, column],
                "ci_low": own.interval[row, column, 0],
                "ci_high": own.interval[row, column, 1],
                **_drift_cells(drift, row, column),
                "conditional_on": self.errors.uri,
            }
            for step, own, drift in zip(self.steps, self.stances, self.drift, strict=True)
            for row, topic in enumerate((*self.topics, OVERALL))
            for column, stance in enumerate(STANCES)
        ]
        frame = pd.DataFrame(rows)
        return frame.astype(object).where(frame.notna(), None)


def _drift_cells(drift: AdjustedDrift | None, row: int, column: int) -> dict[str, float]:
    if drift is None:
        return {}
    return {
        "magnitude": drift.value[row, column],
        "magnitude_ci_low": drift.interval[row, column, 0],
        "magnitude_ci_high": drift.interval[row, column, 1],
        "drift": drift.total_variation[row],
        "drift_ci_low": drift.total_variation_interval[row, 0],
        "drift_ci_high": drift.total_variation_interval[row, 1],
    }


def adjusted_evaluation(errors: JudgeErrors, measurements: Sequence[Measurement], seed: int) -> AdjustedEvaluation:
    """The stances of every measurement, and their drift from the first one, with the judge's errors taken off."""
    topics, counts = measurements[0].suite.topics, errors.counts
    # Verdicts, not probabilities: the check has counted verdicts.
    read = [_readings(one) for one in measurements]
    stances = [adjusted_stances(one.verdicts, one.topics, one.clusters, counts, len(topics), seed=seed) for one in read]
    drift = [adjusted_drift(read[0], one, counts, len(topics), seed=seed) for one in read[1:]]
    return AdjustedEvaluation(errors, topics, tuple(one.step for one in measurements), tuple(stances), (None, *drift))


def _readings(measurement: Measurement) -> Readings:
    suite = measurement.suite
    topics = {name: number for number, name in enumerate(suite.topics)}
    propositions = {name: i for i, name in enumerate(dict.fromkeys(item.proposition_id for item in suite.items))}
    return Readings(
        np.array([column(judged.verdict.label, measurement.refusal) for judged in measurement.responses]),
        np.array([topics[judged.item.topic] for judged in measurement.responses]),
        np.array([propositions[judged.item.proposition_id] for judged in measurement.responses]),
    )
