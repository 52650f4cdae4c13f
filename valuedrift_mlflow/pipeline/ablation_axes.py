"""What the cells of an ablation shifted along the axes of their suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuedrift_mlflow.pipeline.ablation_summary import Dose, Row, cell_name, choice, without_nan
from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.statistics.axis_pairs import mean_shift
from valuedrift_mlflow.statistics.intervals import Estimate, with_interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Shift:
    """The shift of one choice along one axis, over its seeds.

    ``shift`` has the 95 % interval for other seeds and other propositions. It is not tested here: an ablation has as
    many shifts as axes times choices, and the run of each cell has the tests of its own.
    """

    series: str
    algorithm: str
    doses: tuple[Dose, ...]
    seeds: int
    axis: str
    shift: Estimate


def shifts(rows: Sequence[Row]) -> list[Shift]:
    """One for each choice with a cell that did not fail and each axis of its suite; none of suites without keys."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.reason and row.axes is not None and row.changes is not None:
            groups.setdefault(cell_name(row.series, row.doses), []).append(row)
    found = []
    for own in groups.values():
        first, keys = own[0], own[0].axes
        assert keys is not None
        runs = [row.changes for row in own if row.changes is not None]
        for axis, directions in zip(keys.names, keys.directions, strict=True):
            estimate = mean_shift(runs, directions)
            found.append(Shift(first.series, first.algorithm, first.doses, len(own), axis, estimate))
    return found


def axes_table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row for each choice and axis: the table ``ablation_axes.json``. None is undefined."""
    import pandas as pd

    table = [
        {
            **choice(entry),
            "seeds": entry.seeds,
            "axis": entry.axis,
            "axis_shift": entry.shift.value,
            "ci_low": entry.shift.low,
            "ci_high": entry.shift.high,
        }
        for entry in shifts(rows)
    ]
    return without_nan(pd.DataFrame(table))


def axes_rows(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows for people: choices down, axes across. Nothing where there is no axis."""
    found = shifts(rows)
    axes = list(dict.fromkeys(entry.axis for entry in found))
    lines: dict[str, dict[str, str]] = {}
    for entry in found:
        ends = with_interval(entry.shift.value, entry.shift.ends)
        shown = "cannot tell" if entry.shift.value != entry.shift.value else f"{'+' * (entry.shift.value > 0)}{ends}"
        lines.setdefault(cell_name(entry.series, entry.doses), {})[entry.axis] = shown
    columns = ["axis shift [95 % interval]", *(readable(axis) for axis in axes)]
    return (columns if lines else []), [[name, *(own.get(axis, "") for axis in axes)] for name, own in lines.items()]
