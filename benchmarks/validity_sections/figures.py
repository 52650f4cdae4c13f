"""The figures of the page: two SVG files, made of the tables' own cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from validity_sections.page import Row

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")
MARKERS = ("o", "s", "^", "D")


def coverage(rows: Sequence[Row], path: Path) -> None:
    """Coverage of each world and kind of interval, with the range that is aimed at."""
    plt = _plot()
    figure, axes = plt.subplots(figsize=(7.2, 0.24 * len(rows) + 1.1), layout="constrained")
    axes.axvspan(0.93, 0.97, color="#DDDDDD", label="0.93 to 0.97")
    for column, name in enumerate(("stance", "magnitude", "drift of a topic", "overall drift")):
        values = [float(row[2 + column]) for row in rows]
        places = [number + 0.15 * (column - 1.5) for number in range(len(rows))]
        axes.plot(values, places, MARKERS[column], color=COLORS[column], markersize=4, label=name)
    axes.set_yticks(range(len(rows)), [f"{row[0]}, {row[1]}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0.85, 1.005)
    axes.set_xlabel("share of 95 % intervals that hold the truth")
    axes.grid(axis="x", linewidth=0.4)
    figure.legend(loc="outside upper center", ncols=5, fontsize=7, frameon=False)
    _save(figure, path)


def arrival(rows: Sequence[Row], path: Path) -> None:
    """True times against those that are read, by the isotonic fit and by the paper's rule."""
    plt = _plot()
    figure, axes = plt.subplots(figsize=(7.2, 0.4 * len(rows) + 1.2), layout="constrained")
    for number, row in enumerate(rows):
        for column, share in ((3, "50 %"), (4, "90 %")):
            true, read = (float(value) for value in re.findall(r"\d\.\d+", row[column])[:2])
            color = COLORS[column - 3]
            axes.plot(true, number, "|", color=color, markersize=16, label=f"true, {share}" if not number else None)
            axes.plot(read, number, "o", color=color, markersize=5, label=f"read, {share}" if not number else None)
        label = "`extreme_interval`" if not number else None
        axes.plot(float(row[5]), number, "x", color="#555555", markersize=6, label=label)
    axes.set_yticks(range(len(rows)), [f"{row[0]}, drift {row[1]}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("fraction of the stage (median over stages)")
    axes.grid(axis="x", linewidth=0.4)
    figure.legend(loc="outside upper center", ncols=5, fontsize=7, frameon=False)
    _save(figure, path)


def _plot():  # type: ignore[no-untyped-def]
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "validity"  # the same file from the same figures
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot

    return matplotlib.pyplot


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    path.write_text(text + "\n", encoding="utf-8")
