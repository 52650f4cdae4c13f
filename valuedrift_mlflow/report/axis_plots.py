"""Figures of axes: shifts over the steps of a stage, and shifts of several stages side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.report.page import Illustration
from valuedrift_mlflow.report.plots import COLUMN, MARKERS, PALETTE, grid, plot, readable
from valuedrift_mlflow.report.tables import Table
from valuedrift_mlflow.statistics.axes import AxisShifts
from valuedrift_mlflow.statistics.intervals import with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDS = ("ci_low", "ci_high")


def axis_trajectories(stage: str, shifts: AxisShifts) -> Illustration:
    """The shift along every axis over a stage's steps, with 95 % interval bands."""
    figure, panels = grid(len(shifts.axes), plain=True)
    for a, axes in enumerate(panels):
        low, high = shifts.shift_ci[:, a].T
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.fill_between(shifts.steps, low, high, color=PALETTE[0], alpha=0.18, linewidth=0)
        axes.plot(shifts.steps, shifts.shift[:, a], color=PALETTE[0], linewidth=1.6, marker="o", markersize=2.5)
        axes.set_title(readable(shifts.axes[a]))
    _symmetric(panels[0], np.abs(shifts.shift_ci).max(initial=0.2, where=np.isfinite(shifts.shift_ci)))
    figure.supxlabel(f"optimizer step of {stage}", fontsize=10)
    figure.supylabel("axis shift since step 0", fontsize=10)
    rows = [
        [stage, int(step), axis, shifts.shift[c, a], *shifts.shift_ci[c, a], str(bool(shifts.significant[c, a]))]
        for a, axis in enumerate(shifts.axes)
        for c, step in enumerate(shifts.steps)
    ]
    data = Table(("stage", "step", "axis", "shift", *_ENDS, "significant"), rows)
    caption = f"Shift along every axis of values over {stage}, with 95 % intervals over propositions."
    return Illustration(figure, caption, f"At the end of {stage}: {_shifted(shifts)}.", data)


def axis_shift_figure(stages: Mapping[str, AxisShifts]) -> Illustration:
    """The shift along every axis at the end of each stage, with its 95 % interval; filled where it is significant."""
    plt = plot()
    names = next(iter(stages.values())).axes
    figure, axes = plt.subplots(figsize=(COLUMN, 1.0 + (0.22 + 0.13 * len(stages)) * len(names)), layout="constrained")
    spread = np.linspace(-0.3, 0.3, len(stages)) if len(stages) > 1 else [0.0]
    largest = 0.2
    for s, (stage, shifts) in enumerate(stages.items()):
        color, marker = PALETTE[s % len(PALETTE)], MARKERS[s % len(MARKERS)]
        for a in range(len(names)):
            y, value, (low, high) = a + spread[s], shifts.shift[-1, a], shifts.shift_ci[-1, a]
            axes.plot([low, high], [y, y], color=color, linewidth=1.4)
            filled = color if shifts.significant[-1, a] else "white"
            label = stage if a == 0 else None
            axes.plot([value], [y], marker, color=color, markerfacecolor=filled, markersize=5, label=label)
            largest = float(np.nanmax([largest, abs(low), abs(high)]))
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_xlim(-1.05 * largest, 1.05 * largest)
    axes.set_yticks(np.arange(len(names)), [readable(name) for name in names])
    for between in range(1, len(names)):
        axes.axhline(between - 0.5, color="0.92", linewidth=0.8)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("axis shift: − end | + end (filled: significant)")
    if len(stages) > 1:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    rows = [
        [stage, axis, own.shift[-1, a], *own.shift_ci[-1, a], str(bool(own.significant[-1, a]))]
        for stage, own in stages.items()
        for a, axis in enumerate(own.axes)
    ]
    data = Table(("stage", "axis", "shift", *_ENDS, "significant"), rows)
    says = ". ".join(f"{stage}: {_shifted(shifts)}" for stage, shifts in stages.items())
    return Illustration(figure, "Shift along every axis of values, with 95 % intervals over propositions.", says, data)


def _shifted(shifts: AxisShifts) -> str:
    """Which axes shifted significantly at the last checkpoint, by how much; else which one shifted most."""
    last = shifts.shift[-1]
    order = np.argsort(-np.abs(np.nan_to_num(last)), kind="stable")
    starred = [a for a in order if shifts.significant[-1, a]]
    shown = starred or [a for a in order[:1].tolist() if np.isfinite(last[a])]
    told = [f"{readable(shifts.axes[a])} {with_interval(last[a], shifts.shift_ci[-1, a])}" for a in shown]
    count = f"{len(starred)} of {len(last)} axes shifted significantly"
    return f"{count}, {', '.join(told)}" if starred else f"{count}; the largest shift is {told[0]}" if told else count


def axis_position_figure(shifts: AxisShifts) -> Illustration:
    """The position on every axis at the last checkpoint, with its 95 % interval."""
    plt = plot()
    figure, axes = plt.subplots(figsize=(COLUMN, 1.0 + 0.3 * len(shifts.axes)), layout="constrained")
    place = np.arange(len(shifts.axes))
    for y, (low, high) in zip(place, shifts.leaning_ci[-1], strict=True):
        axes.plot([low, high], [y, y], color=PALETTE[0], linewidth=1.4)
    axes.plot(shifts.leaning[-1], place, "o", color=PALETTE[0], markersize=5)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_xlim(-1, 1)
    axes.set_yticks(place, [readable(name) for name in shifts.axes])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("position: − end | + end")
    rows = [[axis, shifts.leaning[-1, a], *shifts.leaning_ci[-1, a]] for a, axis in enumerate(shifts.axes)]
    said = [
        f"{readable(axis)} {with_interval(shifts.leaning[-1, a], shifts.leaning_ci[-1, a])}"
        for a, axis in enumerate(shifts.axes)
        if np.isfinite(shifts.leaning[-1, a])
    ]
    caption = "Position on every axis of values, with 95 % intervals over propositions."
    says = f"{'; '.join(said)}." if said else f"None of {len(shifts.axes)} axes has an answer that could be scored."
    return Illustration(figure, caption, says, Table(("axis", "position", *_ENDS), rows))


def _symmetric(axes: Axes, largest: float) -> None:
    axes.set_ylim(-1.05 * largest, 1.05 * largest)
