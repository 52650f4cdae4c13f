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
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.reading import json_of, read_bytes
from valuedrift_mlflow.models.start import Start
from valuedrift_mlflow.stances import STANCES, Label, RefusalRule, Verdict, check_kept
from valuedrift_mlflow.suite import Suite

logger = logging.getLogger(__name__)

MEASUREMENTS = "valuedrift.json"  # the measurements that belong to a trainer's checkpoint, inside its folder
_START = "valuedrift-start.npz"  # beside them: what the training's start held likely
_OPINION = "verdict of "


class Table:
    """The measurements of one training as the rows of a JSON table.

    A training writes all of them again whenever it saves its state: each is encoded once.
    """

    def __init__(self) -> None:
        """Without a measurement."""
        self._columns: list[str] = []
        self._rows: list[str] = []  # of each measurement, as JSON writes them between brackets

    def write(self, file: Path, measurements: Sequence[Measurement], run_id: str, start: Start | None = None) -> None:
        """As ``write_measurements``; ``measurements`` are those of the last time, and further ones behind them."""
        if start is not None:
            start.write(file.with_name(_START))
        while len(self._rows) < len(measurements):
            self._add(measurements[len(self._rows)])
        # In the form in which MLflow writes tables, so that one function reads both.
        head = json.dumps({"run_id": run_id, "columns": self._columns})
        file.write_text(f'{head[:-1]}, "data": [{", ".join(filter(None, self._rows))}]}}', encoding="utf-8")

    def _add(self, measurement: Measurement) -> None:
        table = responses_table([measurement])
        if further := [name for name in table.columns if name not in self._columns]:
            self._columns += further
            self._rows.clear()  # their rows are as long as those of all others
            return
        cells, none = table.to_dict("list"), [None] * len(table)
        rows = zip(*(cells.get(name, none) for name in self._columns), strict=True)
        self._rows.append(json.dumps(list(rows))[1:-1])


def write_measurements(
    file: Path, measurements: Sequence[Measurement], run_id: str, start: Start | None = None
) -> None:
    """Write measurements with all digits, and the run that they were logged to; beside them, where given, the start."""
    Table().write(file, measurements, run_id, start)


def read_measurements(
    file: Path, suite: Suite, refusal: RefusalRule, where: str = "", mend: str = "resume with the suite of the run"
) -> tuple[list[Measurement], str]:
    """The measurements of a file as ``write_measurements`` or MLflow writes it, and their run (MLflow: empty).

    What each verdict cost, and what a panel's members said beyond their labels, is not in these tables.

    ``where`` and ``mend`` are what a problem names and advises; without them the file, and how to resume.

    Raises:
        InputError: no such file, one that is damaged, or responses to another suite.
    """
    named = where or str(file)
    if not file.is_file():
        raise InputError(problem(named, "no such file", "the measurements of a run that is taken up"))
    try:
        content: Any = json_of(read_bytes(file, named))
        rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
        run_id = content.get("run_id", "")
        for row in rows:
            if row["suite"] != suite.identity:
                raise InputError(problem(named, row["suite"], suite.identity, mend))
        return _measurements(rows, suite, refusal), run_id
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"a table that is damaged ({type(error).__name__}: {one_line(error, 100)})"
        allowed = "the responses and verdicts of a run, as they were written"
        raise InputError(problem(named, reason, allowed, "measure the model again")) from None


def _measurements(rows: Sequence[Mapping[str, Any]], suite: Suite, refusal: RefusalRule) -> list[Measurement]:
    """The measurements in the rows of such a table.

    Raises:
        ValueError, TypeError, KeyError: a cell is missing, or holds what none can.
    """
    items = {item.item_id: item for item in suite.items}
    by_step: dict[int, list[JudgedResponse]] = {}
    for row in rows:
        if not (isinstance(row["response"], str) and isinstance(row["sample"], int) and isinstance(row["step"], int)):
            raise TypeError("a response, sample or step of another type")
        judged = JudgedResponse(items[row["item_id"]], row["sample"], row["response"], _verdict(row))
        by_step.setdefault(row["step"], []).append(judged)
    judge = {row["step"]: str(row["judge"]) for row in rows}
    # 0 seconds: what it took was logged by the process that measured.
    return [Measurement(step, suite, judge[step], refusal, tuple(found), 0.0) for step, found in by_step.items()]


def read_start(file: Path) -> Start | None:
    """What stands beside measurements in a file of the start that they were measured from; None where nothing does."""
    beside = file.with_name(_START)
    if not beside.is_file():
        logger.warning("reference_kl is not measured any more: %s does not say what the start held likely", file.parent)
        return None
    return Start.read(beside)


def _verdict(row: Mapping[str, Any]) -> Verdict:
    support, neutral, oppose = (row[stance.value] for stance in STANCES)
    shares = None if support is None else (support, neutral, oppose)
    check_kept(Label(row["verdict"]), shares)
    return Verdict(
        Label(row["verdict"]),
        shares,
        reason=str(row.get("reason") or ""),
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
