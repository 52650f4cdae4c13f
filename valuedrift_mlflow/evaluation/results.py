"""What an evaluation and a check of a judge come to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.evaluation.adjusted import AdjustedEvaluation
from valuedrift_mlflow.evaluation.measurement import Measurement, judge_costs
from valuedrift_mlflow.evaluation.nothing_scored import nothing_scored
from valuedrift_mlflow.evaluation.powered import PoweredEvaluation
from valuedrift_mlflow.evaluation.reliability import Reliability, shown_by
from valuedrift_mlflow.evaluation.settings import Measuring
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.stances import Label, Verdict
from valuedrift_mlflow.statistics.agreement import JudgeQuality, cohen_kappa
from valuedrift_mlflow.statistics.attenuation import Attenuation
from valuedrift_mlflow.statistics.axes import AxisShifts
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import Estimate
from valuedrift_mlflow.statistics.reference_distance import ReferenceDistance

if TYPE_CHECKING:
    import pandas as pd


_QUALITIES = ("accuracy", "macro_f1", "kappa", "coverage")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to; ``drift`` and ``axes`` are from the baseline where there is one.

    ``subject`` and ``baseline`` are what a page calls them; ``tables`` are what the run keeps, by their names;
    ``with_labels`` is what it comes to with people's labels, of these responses or in a check of the judge.
    ``distance`` is that from the ``reference``, where one is given. ``trust`` is what the judge reaches on such texts,
    None in the embedded world and for a judge that reads none. ``settings`` are those that a model was asked with,
    None where its responses existed already.
    """

    subject: str
    baseline: str | None
    measurements: list[Measurement]
    drift: Drift
    axes: AxisShifts
    metrics: dict[str, float]
    tables: dict[str, pd.DataFrame]
    with_labels: PoweredEvaluation | AdjustedEvaluation | None = None
    trust: Reliability | None = None
    settings: Measuring | None = None
    reference: str = ""
    distance: ReferenceDistance | None = None

    @property
    def measurement(self) -> Measurement:
        """The measurement of the subject, at its last step."""
        return self.measurements[-1]

    @property
    def untold(self) -> str:
        """Why nothing can be told, where of a measurement that counts not one response was scored; else empty."""
        return next(filter(None, map(nothing_scored, (self.measurements[-1], self.measurements[0]))), "")

    def labelled_steps(self) -> list[tuple[int, dict[str, float]]]:
        """What every step of one run comes to with people's labels; nothing of a single step or of two runs."""
        found = self.with_labels
        if found is None or any(later <= earlier for earlier, later in pairwise(found.steps)) or len(found.steps) < 2:
            return []
        return [(step, found.metrics(at)) for at, step in enumerate(found.steps)]

    @property
    def compared(self) -> bool:
        """Whether there is anything to measure drift from."""
        return len(self.measurements) > 1


@dataclass(frozen=True)
class JudgeCheck:
    """A judge's verdicts on labelled answers, what they come to, and the run that holds them."""

    judge: str
    answers: list[Labelled]
    verdicts: list[Verdict]
    quality: JudgeQuality
    run_id: str

    @cached_property
    def shown(self) -> Attenuation:
        """How much of a true drift the judge shows on these answers."""
        return shown_by(self.answers, self.verdicts)

    def by_set(self) -> dict[str, list[tuple[Label, Label]]]:
        """Label and verdict of every answer by the set that it is from; empty where there is one set only."""
        sets: dict[str, list[tuple[Label, Label]]] = {}
        for entry, verdict in zip(self.answers, self.verdicts, strict=True):
            sets.setdefault(entry.source, []).append((entry.label, verdict.label))
        return sets if len(sets) > 1 else {}

    def metrics(self) -> dict[str, float]:
        """``judge/...`` metrics with the ends of their 95 % intervals, and what the verdicts cost.

        ``judge/attenuation`` is the share of a true drift that the judge shows on these answers.

        Where there are several sets, each has its own kappa and coverage too: ``judge/real/kappa``.
        """
        quality = self.quality
        metrics = {"judge/calibration_error": quality.calibration_error}
        estimates: dict[str, Estimate] = {name: getattr(quality, name) for name in _QUALITIES}
        estimates["attenuation"] = self.shown.overall
        for name, estimate in estimates.items():
            metrics[f"judge/{name}"] = estimate.value
            metrics[f"judge/{name}_ci_low"], metrics[f"judge/{name}_ci_high"] = estimate.low, estimate.high
        for name, rows in self.by_set().items():
            scored = [(label, verdict) for label, verdict in rows if verdict is not Label.UNSCORED]
            metrics[f"judge/{name}/coverage"] = len(scored) / len(rows)
            metrics[f"judge/{name}/kappa"] = cohen_kappa([label for label, _ in scored], [own for _, own in scored])
        metrics |= judge_costs(self.verdicts)
        return {key: value for key, value in metrics.items() if np.isfinite(value)}
