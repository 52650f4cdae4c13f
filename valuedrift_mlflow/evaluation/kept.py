"""Measurements as they are kept: in files beside a trainer's checkpoints, and in the tables of finished runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.evaluation.metrics import responses_table
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.models.start import Start
from valuedrift_mlflow.stances import STANCES, Label, RefusalRule, Verdict
from valuedrift_mlflow.suite import Suite

logger = logging.getLogger(__name__)

MEASUREMENTS = "valuedrift.json"  # the measurements that belong to a trainer's checkpoint, inside its folder
_START = "valuedrift-start.npz"  # beside them: what the training's start held likely
_OPINION = "verdict of "


def write_measurements(
    file: Path, measurements: Sequence[Measurement], run_id: str, start: Start | None = None
) -> None:
    """Write measurements with all digits, and the run that they were logged to; beside them, where given, the start."""
    if start is not None:
        start.write(file.with_name(_START))
    table = responses_table(measurements)
    # In the form in which MLflow writes tables, so that one function reads both.
    content = {"run_id": run_id, "columns": list(table.columns), "data": table.to_numpy().tolist()}
    file.write_text(json.dumps(content), encoding="utf-8")


def read_measurements(
    file: Path, suite: Suite, refusal: RefusalRule, where: str = "", mend: str = "resume with the suite of the run"
) -> tuple[list[Measurement], str]:
    """The measurements of a file as ``write_measurements`` or MLflow writes it, and their run (MLflow: empty).

    What each verdict cost, and what a panel's members said beyond their labels, is not in these tables.

    ``where`` and ``mend`` are what a problem names and advises; without them the file, and how to resume.

    Raises:
        InputError: no such file, or responses to another suite.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(problem(str(file), error.strerror, "the measurements of a run that is taken up")) from None
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    items = {item.item_id: item for item in suite.items}
    by_step: dict[int, list[JudgedResponse]] = {}
    for row in rows:
        if row["suite"] != suite.identity:
            raise InputError(problem(where or str(file), row["suite"], suite.identity, mend))
        judged = JudgedResponse(items[row["item_id"]], row["sample"], row["response"], _verdict(row))
        by_step.setdefault(row["step"], []).append(judged)
    judge = {row["step"]: row["judge"] for row in rows}
    # 0 seconds: what it took was logged by the process that measured.
    measurements = [
        Measurement(step, suite, judge[step], refusal, tuple(responses), 0.0) for step, responses in by_step.items()
    ]
    return measurements, content.get("run_id", "")


def read_start(file: Path) -> Start | None:
    """What stands beside measurements in a file of the start that they were measured from; None where nothing does."""
    beside = file.with_name(_START)
    if not beside.is_file():
        logger.warning("reference_kl is not measured any more: %s does not say what the start held likely", file.parent)
        return None
    return Start.read(beside)


def _verdict(row: Mapping[str, Any]) -> Verdict:
    support, neutral, oppose = (row[stance.value] for stance in STANCES)
    return Verdict(
        Label(row["verdict"]),
        None if support is None else (support, neutral, oppose),
        reason=row.get("reason") or "",
        opinions=tuple(
            (column.removeprefix(_OPINION), Verdict(Label(label)))
            for column, label in row.items()
            if column.startswith(_OPINION) and label is not None
        ),
    )


def logged_measurements(
    run_id: str,
    suite: Suite,
    refusal: RefusalRule,
    where: str = "--resume",
    mend: str = "resume with the suite of the run",
) -> list[Measurement]:
    """The measurements of a finished stage, from its ``responses.json``.

    Raises:
        InputError: the run has no such table, or its responses are to another suite.
    """
    wanted = "a run with a table of responses, such as a finished stage or an evaluation"
    file = tracking.downloaded(f"runs:/{run_id}/responses.json", where, wanted)
    return read_measurements(file, suite, refusal, f"{where} runs:/{run_id}", mend)[0]
