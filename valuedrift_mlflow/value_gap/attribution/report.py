"""Tables, figures and the page of an attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.report.page import Illustration, Picture, render
from valuedrift_mlflow.report.plots import COLORS, COLUMN, grid, plot, readable
from valuedrift_mlflow.report.tables import Cell, Table
from valuedrift_mlflow.stances import Stance
from valuedrift_mlflow.value_gap.attribution.findings import TOP, Found, towards
from valuedrift_mlflow.value_gap.attribution.influence import Influences
from valuedrift_mlflow.value_gap.attribution.rows import texts

SHOWN = 100  # rows of each quantity in the table of the run; the parquet file has all
_ON_PAGE = 25
_LETTERS = 400  # of a text in a page; the table of the run has all
_ELSEWHERE = 5  # in the report of the pipeline


@dataclass(frozen=True)
class Attributed:
    """The result of an attribution of one stage.

    Attributes:
        stage: its name.
        stage_run: the id of its run.
        algorithm: the word for its algorithm.
        data: its rows.
        influences: of the rows that were trained on.
        source: of each of these the row of the data, from 0.
        seen: how often each was trained on.
        found: what moved each quantity.
        pulled: how far each row moved all quantities along their changes, in nats.
        left_out: rows of the data that the data set without the top rows lacks.
        method: how gradients were scaled, and how they were multiplied.
        cost: seconds of the attribution, and those of the training where its run has them.
        command: what trains again without the top rows.
    """

    stage: str
    stage_run: str
    algorithm: str
    data: TrainingData
    influences: Influences
    source: NDArray[np.int64]
    seen: NDArray[np.int64]
    found: Sequence[Found]
    pulled: NDArray[np.float64]
    left_out: NDArray[np.int64]
    method: str
    cost: tuple[float, float]
    command: str = ""


def all_rows(result: Attributed) -> pd.DataFrame:
    """Every row's influence on every quantity, in all and by the points of the training.

    Columns: ``row`` (of the data, from 1), ``seen``, ``quantity``, ``influence`` (nats), ``towards``, ``rank`` (from 1,
    along the measured change), ``step_N`` (the part of the influence by the gradient at the checkpoint of step N).
    """
    tables = []
    for q, one in enumerate(result.found):
        by_point = result.influences.scores[:, q]
        total = by_point.sum(1)
        pulled = total * np.sign(one.change or 1.0)
        rank = np.empty(len(total), dtype=np.int64)
        rank[np.argsort(-pulled, kind="stable")] = np.arange(1, len(total) + 1)
        columns = {
            "row": result.source + 1,
            "seen": result.seen,
            "quantity": one.name,
            "influence": total,
            "towards": [towards(one.name, value) if value else "" for value in total],
            "rank": rank,
        }
        parts = {f"step_{step}": by_point[:, p] for p, step in enumerate(result.influences.points)}
        tables.append(pd.DataFrame(columns | parts))
    return pd.concat(tables, ignore_index=True)


def top_table(result: Attributed, rows: int = SHOWN) -> pd.DataFrame:
    """The rows with the most influence along each measured change, with their texts; none that had none along it."""
    table = all_rows(result)
    along = {one.name: np.sign(one.change or 1.0) for one in result.found}
    pulled = table["influence"] * table["quantity"].map(along)
    table = table[(table["rank"] <= rows) & (pulled > 0)]
    table = table.sort_values(["quantity", "rank"], kind="stable").reset_index(drop=True)
    shown = [texts(result.data.rows[row - 1], result.data.kind) for row in table["row"]]
    return pd.concat([table, pd.DataFrame(shown, index=table.index)], axis=1)


def metrics(result: Attributed) -> dict[str, float]:
    """What the run records, by quantity; see ``docs/attribution.md``."""
    made: dict[str, float] = {"attribution/rows_left_out": float(len(result.left_out))}
    for one in result.found:
        key = f"attribution/{one.name}"
        made |= {
            f"{key}/change": one.change,
            f"{key}/predicted": one.predicted,
            f"{key}/concentration": one.concentration,
        }
        made |= {f"{key}/top_{share:.0%}".replace("%", ""): part for share, part in one.explained.items()}
    seconds, training = result.cost
    made["cost/attribution_seconds"] = seconds
    if training:
        made["cost/attribution_ratio"] = seconds / training
    if not np.isnan(result.influences.order_error):
        made["quality/step_loss_error"] = result.influences.order_error
    return {key: value for key, value in made.items() if np.isfinite(value)}


def summary(result: Attributed) -> Table:
    """The table that people see first."""
    columns = ["quantity", "change", "predicted", *(f"top {share:.0%} of rows" for share in TOP), "Gini"]
    rows: list[list[Cell]] = []
    for one in result.found:
        parts = [f"{part:.0%}" if np.isfinite(part) else "" for part in one.explained.values()]
        change = f"{one.change:+.2f} to {one.direction}"
        rows.append([readable(one.name), change, f"{one.predicted:+.2f}", *parts, f"{one.concentration:.2f}"])
    return Table(columns, rows)


def figures(result: Attributed) -> dict[str, Illustration]:
    """How influence is spread over rows, and when in the training the first rows had theirs."""
    return {"influence_shares": _shares(result), "influence_over_steps": _over_steps(result)}


def _pulled(result: Attributed, quantity: int) -> NDArray[np.float64]:
    """(P, N) how far each row pulled a quantity along its measured change, by the points of the training, in nats."""
    pulled: NDArray[np.float64] = result.influences.scores[:, quantity].T * np.sign(
        result.found[quantity].change or 1.0
    )
    return pulled


def _shares(result: Attributed) -> Illustration:
    """The part of each measured change that the first rows come to, as rows are added in the order of their rank."""
    figure, panels = grid(len(result.found), one_x=True)
    rows: list[list[Cell]] = []
    for q, (axes, one) in enumerate(zip(panels, result.found, strict=True)):
        together = np.sort(_pulled(result, q).sum(axis=0))[::-1].cumsum()
        share = np.arange(1, len(together) + 1) / len(together)
        axes.plot(share, together, color="black", linewidth=1.6)
        axes.axhline(abs(one.change), color=COLORS[Stance.SUPPORT], linestyle="--", linewidth=1.2)
        for top in TOP:
            axes.axvline(top, color="0.7", linewidth=0.8)
        axes.set_xscale("log")
        # In words: a page's figures keep their texts as texts, and powers of ten would be formulas.
        shown = [share for share in (0.01, 0.1, 1.0) if share >= 1 / len(together)]
        axes.set_xticks(shown, [f"{share:.0%}" for share in shown])
        axes.xaxis.minorticks_off()
        axes.set_title(f"{readable(one.name)}, to {one.direction}")
        drawn = np.unique(np.geomspace(1, len(together), 50).astype(int)) - 1
        rows += [[one.name, float(share[place]), float(together[place]), abs(one.change)] for place in drawn]
    figure.supxlabel("share of the rows, those with the most influence first", fontsize=10)
    figure.supylabel("their influence together", fontsize=10)
    says = "; ".join(
        f"{readable(one.name)}: " + ", ".join(f"top {share:.0%} {part:.0%}" for share, part in one.explained.items())
        for one in result.found
    )
    caption = (
        "Influence of the first rows together, by their share of all. The dashed line is the measured change; grey "
        "lines mark 1 % and 5 %."
    )
    data = Table(("quantity", "share_of_rows", "influence", "change"), rows)
    return Illustration(figure, caption, f"Shares of the change by the first rows: {says}.", data)


def _over_steps(result: Attributed) -> Illustration:
    """The influence of the first 5 % of rows by the points of the training."""
    plt = plot()
    figure, axes = plt.subplots(figsize=(COLUMN, 3.2), layout="constrained")
    points = result.influences.points
    rows: list[list[Cell]] = []
    said = []
    for q, one in enumerate(result.found):
        pulled = _pulled(result, q)
        first = np.argsort(-pulled.sum(axis=0), kind="stable")[: max(1, round(TOP[-1] * pulled.shape[1]))]
        by_point = pulled[:, first].sum(axis=1)
        axes.plot(points, by_point, marker="o", label=readable(one.name))
        rows += [[one.name, int(step), float(value)] for step, value in zip(points, by_point, strict=True)]
        said.append(f"{readable(one.name)} most at step {points[int(by_point.argmax())]}")
    axes.set_xlabel(f"optimizer step of {result.stage}")
    axes.set_ylabel("influence of the top 5 %")
    axes.legend(fontsize=7, ncols=2)
    caption = "When the first 5 % of rows had their influence, by the checkpoints at which gradients were taken."
    return Illustration(figure, caption, f"{'; '.join(said)}.", Table(("quantity", "step", "influence"), rows))


def html(result: Attributed, pictures: Mapping[str, Picture]) -> str:
    """The page of an attribution: one file."""
    from valuedrift_mlflow import tracking

    top = top_table(result, _ON_PAGE)
    named = [name for name in ("prompt", "completion", "chosen", "rejected", "label") if name in top.columns]
    return render(
        "attribution.html.j2",
        result=result,
        version=tracking.package_version(),
        summary=summary(result),
        lead=lead(result),
        quantities=[(readable(one.name), _first_rows(top[top["quantity"] == one.name], named)) for one in result.found],
        pictures=list(pictures.values()),
    )


def first_rows(result: Attributed) -> Table:
    """The few rows with the most influence on each quantity, for another run's page."""
    top = top_table(result, _ELSEWHERE)
    named = [name for name in ("prompt", "completion", "chosen", "rejected") if name in top.columns]
    rows: list[list[Cell]] = [
        [
            readable(row["quantity"]),
            str(row["row"]),
            f"{row['influence']:+.4f}",
            row["towards"],
            *(_short(row[name]) for name in named),
        ]
        for row in top.to_dict("records")
    ]
    return Table(("quantity", "row", "influence", "towards", *named), rows)


def _short(text: object) -> str:
    said = str(text)
    return said if len(said) <= _LETTERS else f"{said[:_LETTERS]} …"


def _first_rows(top: pd.DataFrame, texts: Sequence[str]) -> Table:
    rows: list[list[Cell]] = [
        [
            f"{row['rank']}",
            f"row {row['row']}",
            f"{row['influence']:+.4f}",
            row["towards"],
            *(_short(row[name]) for name in texts),
        ]
        for row in top.to_dict("records")
    ]
    return Table(("rank", "row", "influence", "towards", *texts), rows)


def lead(result: Attributed) -> list[str]:
    """What was found, one line for each quantity."""
    lines = []
    for one in result.found:
        parts = [
            f"the first {share:.0%} of rows make up {part:.0%}"
            for share, part in one.explained.items()
            if np.isfinite(part)
        ]
        told = f": {', '.join(parts)} of it, to first order" if parts else ""
        lines.append(f"{readable(one.name)} moved by {abs(one.change):.2f} to {one.direction}{told}.")
    return lines
