"""What all figures share: colours of the stances, grids of panels, curves with bands, legends."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.report.page import Illustration
from valuedrift_mlflow.report.tables import Cell, Table
from valuedrift_mlflow.stances import STANCES, Stance
from valuedrift_mlflow.statistics.drift import Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]
# Blue, grey and orange of a palette that colour-blind readers can tell apart.
COLORS = {Stance.SUPPORT: "#0072B2", Stance.NEUTRAL: "#7F7F7F", Stance.OPPOSE: "#D55E00"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
COLUMN = 5.2  # inches: a figure of this width can be read on a telephone, where it is shown at two thirds of its size
LINES = ("-", "--", ":", "-.")
_MARGINS = (0.75, 0.1, 0.55, 0.65, 0.15, 0.35)  # inches: left, right, bottom, top, between columns, between rows
STANCE_COLUMNS = ("stage", "step", "topic", "stance", "share", "ci_low", "ci_high")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def readable(slug: str) -> str:
    """A topic's slug as a title."""
    return slug.replace("_", " ")


def color_of(name: str) -> str:
    """A colour of the palette that is always the same for a name."""
    return PALETTE[zlib.crc32(name.encode()) % len(PALETTE)]


def plot() -> ModuleType:
    """Pyplot without a screen, in the look of all figures."""
    import matplotlib

    matplotlib.use("Agg")  # draws to files alone, so that no machine needs a screen
    import matplotlib.pyplot
    import seaborn as sns

    sns.set_theme(
        style="whitegrid",
        context="paper",
        font_scale=1.1,
        # A font that comes with matplotlib: seaborn asks for Arial first, which not every machine has.
        # No mathematics: a name of a model may have a dollar in it.
        rc={
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "font.family": "DejaVu Sans",
            "text.parse_math": False,
        },
    )
    pyplot: ModuleType = matplotlib.pyplot
    return pyplot


def grid(panels: int, *, one_x: bool = True, plain: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, at most three in a row, with shared axes.

    A ``plain`` one has numbers on both axes and one line of legend: its margins are known, and it is not laid out,
    which takes twice as long as to draw it.
    """
    plt = plot()
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    width, height = (2.6 if columns > 1 else 3.6), 2.0
    wide, high = width * columns, height * rows + 0.7
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(wide, high),
        sharex=one_x,
        sharey=True,
        # Always an array of axes: one panel alone would not be one.
        squeeze=False,
        layout=None if plain else "constrained",
    )
    if plain:
        left, right, bottom, top, across, down = _MARGINS
        figure.subplots_adjust(left / wide, bottom / high, 1 - right / wide, 1 - top / high)
        figure.subplots_adjust(wspace=across / (width - across), hspace=down / (height - down))
    flat = list(axes.flat)
    for unused in flat[panels:]:
        unused.remove()
    for column in range(columns):  # the lowest panel of every column shows the shared axis
        lowest = max(index for index in range(panels) if index % columns == column)
        flat[lowest].tick_params(labelbottom=True)
    return figure, flat[:panels]


def curves(
    axes: Axes, x: Sequence[int] | NDArray[np.int64] | Floats, probability: Floats, interval: Floats, line: str = "-"
) -> None:
    """Three stances with their interval bands: probability (C, 3), interval (C, 3, 2)."""
    for s, stance in enumerate(STANCES):
        axes.fill_between(x, interval[:, s, 0], interval[:, s, 1], color=COLORS[stance], alpha=0.18, linewidth=0)
        marker = "o" if len(x) == 1 else None
        axes.plot(
            x, probability[:, s], color=COLORS[stance], linestyle=line, linewidth=1.6, marker=marker, markersize=4
        )


def legend(figure: Figure, lines: Mapping[str, str], columns: int = 6) -> None:
    """The stances (and styles of lines, where there are several) above all panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLORS[stance], linewidth=2.5, label=stance.value) for stance in STANCES]
    if len(lines) > 1:
        handles += [Line2D([], [], color="black", linestyle=line, label=name) for name, line in lines.items()]
    place = "outside upper center" if figure.get_layout_engine() else "upper center"
    figure.legend(handles=handles, loc=place, ncols=columns, frameon=False)


def stance_rows(stage: str, drift: Drift) -> list[list[Cell]]:
    """The data of stances over a stage's steps, all topics together first: rows of `STANCE_COLUMNS`."""
    everything = [("all", drift.overall_probability, drift.overall_probability_ci)]
    everything += [(topic, drift.probability[:, t], drift.probability_ci[:, t]) for t, topic in enumerate(drift.topics)]
    return [
        [stage, int(step), topic, stance.value, float(probability[c, s]), *map(float, interval[c, s])]
        for topic, probability, interval in everything
        for c, step in enumerate(drift.steps)
        for s, stance in enumerate(STANCES)
    ]


def standing_at(drift: Drift, at: int = -1) -> str:
    """The stances over all topics at one checkpoint, in words: ``support 0.35, neutral ...``."""
    shares = drift.overall_probability[at]
    if not np.isfinite(shares).all():
        return f"none of {len(drift.topics)} topics could be scored"
    return ", ".join(f"{stance} {shares[s]:.2f}" for s, stance in enumerate(STANCES))


def went(drift: Drift) -> str:
    """Where the stances over all topics went, in words: ``support 0.35 to 0.71, neutral ...``."""
    first, last = drift.overall_probability[[0, -1]]
    if not np.isfinite(last - first).all():
        return f"{standing_at(drift, 0)} at the start, {standing_at(drift)} at the end"
    return ", ".join(f"{stance} {first[s]:.2f} to {last[s]:.2f}" for s, stance in enumerate(STANCES))


def stage_figures(stage: str, drift: Drift) -> dict[str, Illustration]:
    """The figures of one stage: stances of every topic over its steps, with 95 % interval bands."""
    figure, panels = grid(len(drift.topics) + 1, plain=True)
    everything = [("all topics", drift.overall_probability, drift.overall_probability_ci)]
    everything += [
        (readable(topic), drift.probability[:, t], drift.probability_ci[:, t]) for t, topic in enumerate(drift.topics)
    ]
    for axes, (title, probability, interval) in zip(panels, everything, strict=True):
        curves(axes, drift.steps, probability, interval)
        axes.set_title(title)
        axes.set_ylim(0, 1)
    figure.supxlabel(f"optimizer step of {stage}", fontsize=10)
    figure.supylabel("share of responses", fontsize=10)
    legend(figure, {})
    caption = f"Stances of every topic over {stage}, with 95 % intervals."
    data = Table(STANCE_COLUMNS, stance_rows(stage, drift))
    return {"stance_trajectories": Illustration(figure, caption, f"Over all topics: {went(drift)}.", data)}
