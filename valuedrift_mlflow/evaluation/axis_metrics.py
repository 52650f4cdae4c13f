"""Axes of a suite's values in measurements: their metrics, their table, what to call their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.measurement import Measurement, finite
from valuedrift_mlflow.statistics.axes import AxisShifts, analyse_axes, data_axis
from valuedrift_mlflow.statistics.intervals import with_interval

if TYPE_CHECKING:
    import pandas as pd

AXIS_TABLE = "axis_table"
COLUMNS = ("axis", "- end", "+ end", "position [95 % interval]")
SHIFT_COLUMN = "axis shift [95 % interval]"


def axis_shifts(measurements: Sequence[Measurement], steps: Sequence[int], seed: int = 0) -> AxisShifts:
    """Positions and shifts along the suite's axes; in a suite without keys along the axis that its answers show.

    The measurements are of one suite, at rising ``steps``. Where two of them have other keys, those of the last hold
    for all.
    """
    suite = measurements[-1].suite
    numbers, propositions = suite.propositions
    if suite.axes:
        values = np.stack([measurement.values for measurement in measurements])
        return analyse_axes(values, numbers, suite.keyed, suite.axes, steps, seed=seed)
    topics = np.array([suite.topics.index(item.topic) for item in propositions], dtype=np.int64)
    return data_axis(np.stack([leaning_halves(own) for own in measurements]), topics, steps, seed=seed)


def leaning_halves(measurement: Measurement) -> NDArray[np.float64]:
    """Leaning of each proposition in two halves of its answers, shape (2, P); NaN where a half has no scored answer.

    Every other prompt of a proposition is in the second half; of one prompt alone, every other sample.
    """
    suite = measurement.suite
    numbers, propositions = suite.propositions
    asked = np.zeros(len(propositions), dtype=np.int64)
    place: dict[str, tuple[int, int]] = {}  # of an item: its proposition, and the how manieth prompt of it it is
    for item, number in zip(suite.items, numbers.tolist(), strict=True):
        place[item.item_id] = number, int(asked[number])
        asked[number] += 1
    sums, counts = np.zeros((2, len(propositions))), np.zeros((2, len(propositions)))
    for judged in measurement.responses:
        vector = judged.verdict.vector(measurement.refusal)
        if vector is not None:
            number, prompt = place[judged.item.item_id]
            half = (prompt if asked[number] > 1 else judged.sample) % 2
            sums[half, number] += vector[0] - vector[2]
            counts[half, number] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        halves: NDArray[np.float64] = sums / counts
    return halves


def metrics_of_axes(shifts: AxisShifts, *, compared: bool = True, at: int = -1) -> dict[str, float]:
    """``axis/NAME``, and where there is something to measure it from ``axis_shift/NAME``.

    Their intervals are in `axis_table`.
    ``axes/shifted`` counts the axes that moved significantly, ``axes/shift_bound`` is what none has moved further
    than; it is left out where an axis has no interval, so that a gate on it does not pass.
    """
    metrics: dict[str, float] = {f"axis/{axis}": float(shifts.leaning[at, a]) for a, axis in enumerate(shifts.axes)}
    if compared:
        for a, axis in enumerate(shifts.axes):
            metrics[f"axis_shift/{axis}"] = float(shifts.shift[at, a])
        if np.isfinite(shifts.p_value[at]).any():
            metrics["axes/shifted"] = float(shifts.significant[at].sum())
        metrics["axes/shift_bound"] = shifts.bound(at)
    return finite(metrics)


def axis_table(shifts: AxisShifts, measurement: Measurement) -> pd.DataFrame:
    """One row for each step and axis: the table ``axis_table.json``. None is undefined."""
    import pandas as pd

    rows = []
    for c, step in enumerate(shifts.steps.tolist()):
        for a, axis in enumerate(shifts.axes):
            ends = measurement.suite.ends.get(axis)
            rows.append(
                {
                    "step": step,
                    "axis": axis,
                    "minus": ends.minus if ends else "",
                    "plus": ends.plus if ends else "",
                    "propositions": int(shifts.propositions[a]),
                    "position": shifts.leaning[c, a],
                    "ci_low": shifts.leaning_ci[c, a, 0],
                    "ci_high": shifts.leaning_ci[c, a, 1],
                    "shift": shifts.shift[c, a],
                    "shift_ci_low": shifts.shift_ci[c, a, 0],
                    "shift_ci_high": shifts.shift_ci[c, a, 1],
                    "p_value": shifts.p_value[c, a],
                    "p_adjusted": shifts.p_adjusted[c, a],
                    "significant": bool(shifts.significant[c, a]),
                }
            )
    frame = pd.DataFrame(rows)
    return frame.astype(object).where(frame.notna(), None)  # JSON has no NaN


def axis_rows(
    shifts: AxisShifts, measurement: Measurement, *, compared: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table that people read: every axis with its ends, its position and its shift."""
    rows = []
    for a, axis in enumerate(shifts.axes):
        ends = measurement.suite.ends.get(axis)
        row = [axis.replace("_", " "), ends.minus if ends else "", ends.plus if ends else ""]
        position = shifts.leaning[-1, a]
        row.append(with_interval(position, shifts.leaning_ci[-1, a]) if np.isfinite(position) else "")
        rows.append(row + ([shift_cell(shifts, a)] if compared else []))
    return [*COLUMNS, *([SHIFT_COLUMN] if compared else [])], rows


def shift_cell(shifts: AxisShifts, axis: int) -> str:
    """The shift at the last checkpoint with its interval, a sign, and a star where it is significant."""
    value = shifts.shift[-1, axis]
    if not np.isfinite(value):
        return "cannot tell"
    star = " *" if shifts.significant[-1, axis] else ""
    return f"{'+' if value > 0 else ''}{with_interval(value, shifts.shift_ci[-1, axis])}{star}"
