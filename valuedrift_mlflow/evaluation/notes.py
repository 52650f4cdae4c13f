"""What the run of a training, of an evaluation or of a judge's check says of itself on its first page in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.axis_metrics import AXIS_TABLE, axis_shifts
from valuedrift_mlflow.evaluation.certainty import measured_line, unscored_line
from valuedrift_mlflow.evaluation.headline import Lead, lead_of, standing
from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.evaluation.nothing_scored import nothing_scored
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.evaluation.report import evaluation_rows, labels_section
from valuedrift_mlflow.evaluation.results import Evaluation, JudgeCheck
from valuedrift_mlflow.evaluation.topic_table import Topics
from valuedrift_mlflow.report.notes import note
from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.report.tables import Table
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import with_interval

_TABLES = {
    "figures": "figures",
    "drift of every topic and step": "value_drift_table.json",
    "axes of values": f"{AXIS_TABLE}.json",
    "every answer": "responses.json",
}


def described(
    run_id: str,
    lead: str,
    table: Table,
    lines: Sequence[str],
    files: Mapping[str, str],
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """A description with links to ``files``, artifacts of the run by what they are called, and the command."""
    links = {name: tracking.page_of(run_id, file) for name, file in files.items()} | dict(elsewhere or {})
    return note(lead, table, lines, links, tracking.command())


def told(lead: Lead) -> str:
    """A lead as a description has it: its verdict first, in bold."""
    verdict = f"**{lead.verdict}** · " if lead.verdict else ""
    return f"{verdict}{f'{lead.name}: ' if lead.name else ''}{lead.text}"


def training_note(
    run_id: str,
    measurements: Sequence[Measurement],
    drift: Drift,
    trust: Reliability | None,
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """Of a training: what moved from its start to its end, topic by topic."""
    untold = next(filter(None, (nothing_scored(measurements[at]) for at in (-1, 0))), "")
    axes = axis_shifts(measurements, drift.steps.tolist())
    lead = untold or told(lead_of("", drift, axes, measurements[-1].suite))
    return described(run_id, lead, Topics(drift).brief, sure(measurements, drift, trust), _TABLES, elsewhere)


def base_note(run_id: str, measurement: Measurement, drift: Drift, trust: Reliability | None) -> str:
    """Of a model that a pipeline starts from: where it stands."""
    lead = nothing_scored(measurement) or told(standing(drift, axis_shifts([measurement], [0]), measurement.suite))
    figures = {name: file for name, file in _TABLES.items() if name != "figures"}
    rows = [
        [
            readable(topic),
            *(with_interval(drift.probability[-1, t, s], drift.probability_ci[-1, t, s]) for s in range(len(STANCES))),
        ]
        for t, topic in enumerate(drift.topics)
        if np.isfinite(drift.probability[-1, t]).all()
    ]
    table = Table(["topic", *(f"{stance} [95 % interval]" for stance in STANCES)], rows)
    return described(run_id, lead, table, sure([measurement], drift, trust), figures)


def evaluation_note(run_id: str, evaluation: Evaluation) -> str:
    """Of an evaluation: where the model stands, or what moved from the baseline."""
    drift, axes, suite = evaluation.drift, evaluation.axes, evaluation.measurement.suite
    lead = lead_of("", drift, axes, suite) if evaluation.compared else standing(drift, axes, suite)
    lines = sure(evaluation.measurements, drift, evaluation.trust)
    labels = labels_section(evaluation)
    if labels is not None:
        lines = [*lines, f"{labels[0]}: {labels[3]}"]
    table = Table(*evaluation_rows(evaluation))
    return described(run_id, evaluation.untold or told(lead), table, lines, {"report": "report.html", **_TABLES})


def sure(measurements: Sequence[Measurement], drift: Drift, trust: Reliability | None) -> list[str]:
    """How sure a measurement is: what it cannot tell, what unscored answers may hide, what the judge reaches."""
    lines = [f"Intervals and tests: 95 %, over {drift.interval}; a star is significant in the family of all tests"]
    if len(measurements) > 1:
        lines += [measured_line(drift), unscored_line(drift, measurements)]
    return [*lines, trust.sentence] if trust is not None else lines


def check_note(check: JudgeCheck) -> str:
    """Of a check of a judge: how far it agrees with the labels."""
    quality = check.quality
    names = ("kappa", "accuracy", "macro_f1", "coverage")
    rows = [[name.replace("_", " "), str(getattr(quality, name))] for name in names]
    lead = f"{check.judge} on {len(check.answers):,} labelled answers: kappa {quality.kappa}"
    files = {"figures": "figures", "every answer with its label and verdict": "judged.json"}
    return described(check.run_id, lead, Table(("figure", "value [95 % interval]"), rows), (), files)
