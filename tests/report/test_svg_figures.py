"""Figures as they stand in a page, and their data."""

import csv
import io
import math

import pytest
from markupsafe import Markup
from read_pages import read_page

from valuedrift_mlflow.report.page import Illustration, Picture, drawn
from valuedrift_mlflow.report.plots import plot
from valuedrift_mlflow.report.tables import Column, Table, built

HOSTILE = '</svg></style><script>alert(1)</script> $\\frac{1}{0}$ & "quoted"'


def picture(label: str = "model", rows: int = 2) -> Picture:
    """A line of two points with a legend, a clip path and a marker, as pages have them."""
    figure, axes = plot().subplots(figsize=(4, 3))
    axes.plot([0, 1], [0.25, 0.5], marker="o", label=label)
    axes.set_title(label)
    axes.legend()
    data = Table(("model", "drift"), [[label, 0.25 * (row + 1)] for row in range(rows)])
    return drawn({"drift": Illustration(figure, "Drift of a model.", "From 0.25 to 0.5.", data)})["drift"]


def test_a_figure_is_the_same_each_time_and_has_no_style_of_its_own() -> None:
    first, second = picture(), picture()
    assert first.svg == second.svg and first.png == second.png
    assert "style" not in first.svg and "metadata" not in first.svg and "http" not in first.svg
    [svg] = read_page(first.svg).all("svg")
    assert svg.all("title")[0].text == "Drift of a model." and svg.all("desc")[0].text == "From 0.25 to 0.5."
    assert svg.attributes["viewbox"] == "0 0 288 216"  # 4 x 3 inches in points
    assert (svg.attributes["width"], svg.attributes["height"]) == ("384", "288")  # and in a browser's pixels
    assert "model" in [text.text for text in svg.all("text")]  # texts are texts
    assert len(first.svg) < 12_000


def test_colours_and_lines_survive_without_styles() -> None:
    lines = [path for path in read_page(picture().svg).all("path") if "stroke" in path.attributes]
    assert any(path.attributes["stroke"] == "#4c72b0" and path.attributes["fill"] == "none" for path in lines)


def test_names_that_models_have_are_text_wherever_they_stand() -> None:
    hostile = picture(HOSTILE)
    svg = read_page(hostile.svg)
    assert not svg.all("script") and len(svg.all("svg")) == 1
    assert [text.text for text in svg.all("text")].count(HOSTILE) == 2  # title and legend, no mathematics
    assert list(csv.reader(io.StringIO(hostile.csv)))[1] == [HOSTILE, "0.25"]


def test_many_rows_are_downloaded_and_not_shown() -> None:
    assert picture(rows=60).table and not picture(rows=61).table
    assert picture(rows=61).csv.count("\n") == 62


def test_a_plain_figure_is_drawn_too() -> None:
    figure, _ = plot().subplots()
    found = drawn({"drift_by_gap": figure})["drift_by_gap"]
    assert found.caption == "Drift by gap." and not found.csv and isinstance(found.svg, Markup)


def test_columns_without_a_cell_are_left_out() -> None:
    columns = [
        Column[list[float]]("value", lambda subject, row: f"{subject[row]:.1f}"),
        Column[list[float]]("nothing", lambda subject, row: ""),
        Column[list[float]]("large", lambda subject, row: "yes" if subject[row] > 1 else ""),
    ]
    table = built(columns, [0.5, 2.0], [1, 0])
    assert table.columns == ["value", "large"] and table.rows == [["2.0", "yes"], ["0.5", ""]]
    assert not built(columns, [], [])


@pytest.mark.parametrize(("cell", "written"), [(math.nan, ""), (None, ""), (3, "3"), (1 / 3, "0.333333"), ("a", "a")])
def test_how_cells_are_written(cell: float | str | None, written: str) -> None:
    assert Table(("a",), [[cell]]).cells == [[written]]
