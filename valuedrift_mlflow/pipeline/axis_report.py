"""What a pipeline's stages moved along the axes of the suite's values: a table, and the figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from valuedrift_mlflow.evaluation.axis_metrics import shift_cell
from valuedrift_mlflow.pipeline.plan import StageResult
from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Axis shift of each stage [95 % interval]"


def shift_rows(results: Sequence[StageResult], suite: Suite | None = None) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: every axis, and its shift over each trained stage. With a suite, what its ends stand for."""
    trained = [result for result in results if result.start]
    if not trained:
        return [], []
    rows = []
    for a, axis in enumerate(trained[0].axes.axes):
        ends = [] if suite is None else _ends(axis, suite)
        rows.append([readable(axis), *ends, *(shift_cell(result.axes, a) for result in trained)])
    return ["axis", *([] if suite is None else ["- end", "+ end"]), *(result.name for result in trained)], rows


def _ends(axis: str, suite: Suite) -> list[str]:
    named = suite.ends.get(axis)
    return [named.minus, named.plus] if named else ["", ""]


def shift_figure(results: Sequence[StageResult]) -> dict[str, Figure]:
    """The figure of the shifts of all trained stages, if there are any."""
    from valuedrift_mlflow.report.axis_plots import axis_shift_figure

    trained = {result.name: result.axes for result in results if result.start}
    return {"axis_shifts": axis_shift_figure(trained)} if trained else {}
