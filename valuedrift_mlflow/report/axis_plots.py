"""Figures of axes: shifts over the steps of a stage, and shifts of several stages side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.report.plots import MARKERS, grid, plot, readable
from valuedrift_mlflow.statistics.axes import AxisShifts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAIR = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette


def axis_trajectories(stage: str, shifts: AxisShifts) -> Figure:
    """The shift along every axis over a stage's steps, with 95 % interval bands."""
    figure, panels = grid(len(shifts.axes))
    for a, axes in enumerate(panels):
        low, high = shifts.shift_ci[:, a].T
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.fill_between(shifts.steps, low, high, color=_PAIR[0], alpha=0.18, linewidth=0)
        axes.plot(shifts.steps, shifts.shift[:, a], color=_PAIR[0], linewidth=1.6, marker="o", markersize=2.5)
        axes.set_title(readable(shifts.axes[a]))
    _symmetric(panels[0], np.abs(shifts.shift_ci).max(initial=0.2, where=np.isfinite(shifts.shift_ci)))
    figure.supxlabel(f"optimizer step of {stage}", fontsize=10)
    figure.supylabel("axis shift since step 0", fontsize=10)
    return figure


def axis_shift_figure(stages: Mapping[str, AxisShifts]) -> Figure:
    """The shift along every axis at the end of each stage, with its 95 % interval; filled where it is significant."""
    plt = plot()
    names = next(iter(stages.values())).axes
    figure, axes = plt.subplots(figsize=(7, 1.0 + (0.22 + 0.14 * len(stages)) * len(names)), layout="constrained")
    spread = np.linspace(-0.3, 0.3, len(stages)) if len(stages) > 1 else [0.0]
    largest = 0.2
    for s, (stage, shifts) in enumerate(stages.items()):
        color, marker = _PAIR[s % len(_PAIR)], MARKERS[s % len(MARKERS)]
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
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("axis shift: - end | + end (filled: significant)")
    if len(stages) > 1:
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure  # type: ignore[no-any-return]


def axis_position_figure(shifts: AxisShifts) -> Figure:
    """The position on every axis at the last checkpoint, with its 95 % interval."""
    plt = plot()
    figure, axes = plt.subplots(figsize=(7, 1.0 + 0.3 * len(shifts.axes)), layout="constrained")
    place = np.arange(len(shifts.axes))
    for y, (low, high) in zip(place, shifts.leaning_ci[-1], strict=True):
        axes.plot([low, high], [y, y], color=_PAIR[0], linewidth=1.4)
    axes.plot(shifts.leaning[-1], place, "o", color=_PAIR[0], markersize=5)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_xlim(-1, 1)
    axes.set_yticks(place, [readable(name) for name in shifts.axes])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("position: - end | + end")
    return figure  # type: ignore[no-any-return]


def _symmetric(axes: Axes, largest: float) -> None:
    axes.set_ylim(-1.05 * largest, 1.05 * largest)
