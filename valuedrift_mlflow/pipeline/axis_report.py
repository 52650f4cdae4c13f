"""What a pipeline's stages moved along the axes of the suite's values: a table, and the figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.axis_metrics import shift_cell
from valuedrift_mlflow.pipeline.plan import Plan, StageResult
from valuedrift_mlflow.report.plots import MARKERS, readable
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from valuedrift_mlflow.report.page import Illustration

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


def planted_positions(plan: Plan, results: Sequence[StageResult]) -> list[tuple[str, str, float, float]]:
    """Of every SFT stage whose answers were planted along an axis: its name, the axis, the position planted and found.

    Where an axis is keyed both ways (as all of the built-in suite are), the shares that its propositions have in common
    are agreement and no position, so that the shift is all of it.
    """
    rows = []
    for result in results:
        data = plan.data.get(result.name)
        spec = corpus.parse(data.uri) if data is not None and data.uri.startswith(corpus.PREFIX) else None
        if isinstance(spec, corpus.SFTSpec) and spec.tilt.axis in result.axes.axes:
            found = result.axes.leaning[-1, result.axes.axes.index(spec.tilt.axis)]
            rows.append((result.name, readable(spec.tilt.axis), spec.tilt.shift, float(found)))
    return rows


def shift_figure(results: Sequence[StageResult]) -> dict[str, Illustration]:
    """The figure of the shifts of all trained stages, if there are any, and not more than can be told apart in it."""
    from valuedrift_mlflow.report.axis_plots import axis_shift_figure

    trained = {result.name: result.axes for result in results if result.start}
    return {"axis_shifts": axis_shift_figure(trained)} if 0 < len(trained) <= len(MARKERS) else {}
