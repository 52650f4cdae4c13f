"""What a pipeline's report says first: of every stage what moved, along which axis, how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from valuedrift_mlflow.evaluation.headline import Lead, lead_of, verdict_counts
from valuedrift_mlflow.evaluation.metrics import typical_detectable
from valuedrift_mlflow.pipeline.plan import StageResult
from valuedrift_mlflow.report.tables import Column, Table, built
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MOVED, NOT_MOVED
from valuedrift_mlflow.suite import Suite

Results = Sequence[StageResult]


def leads(results: Results, suite: Suite) -> list[Lead]:
    """The first lines of the page, one for every trained stage."""
    return [lead_of(result.name, result.drift, result.axes, suite) for result in results if result.start]


def stage_table(results: Results) -> Table:
    """Every trained stage in figures."""
    trained = [result for result in results if result.start]
    return built(STAGE_COLUMNS, trained, range(len(trained)))


def _axes(results: Results, row: int) -> str:
    axes = results[row].axes
    return f"{int(axes.significant[-1].sum())} of {len(axes.axes)}"


def _bound(results: Results, row: int) -> str:
    bound = results[row].axes.bound()
    return f"{bound:.2f}" if np.isfinite(bound) else ""


def _drift(results: Results, row: int) -> str:
    drift = results[row].drift
    return with_interval(drift.overall[-1], drift.overall_ci[-1]) if np.isfinite(drift.overall[-1]) else ""


def _topics(verdict: str) -> Callable[[Results, int], str]:
    return lambda results, row: str(verdict_counts(results[row].drift)[verdict])


def _detectable(results: Results, row: int) -> str:
    least = typical_detectable(results[row].drift)
    return f"{least:.2f}" if np.isfinite(least) else "none is"


# A new figure of a stage is one line here.
STAGE_COLUMNS: tuple[Column[Results], ...] = (
    Column("stage", lambda results, row: results[row].name),
    Column("axes that shifted", _axes),
    Column("no axis further than", _bound),
    Column("net drift [95 % interval]", _drift),
    Column("topics that moved", _topics(MOVED)),
    Column("did not move", _topics(NOT_MOVED)),
    Column("cannot tell", _topics(CANNOT_TELL)),
    Column("a topic's drift is found from", _detectable),
)
