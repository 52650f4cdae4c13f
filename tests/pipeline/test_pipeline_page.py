"""The page of a pipeline, read as a person reads it: measurements whose stances are planted, no model is trained."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from read_pages import Element, data_of, keeps_to_what_pages_promise, table_of

from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.pipeline.figures import pipeline_figures
from valuedrift_mlflow.pipeline.methods import methods_of
from valuedrift_mlflow.pipeline.plan import Plan, StageResult, StageRun, Trained, prepare
from valuedrift_mlflow.pipeline.report import Logged, MovingRows, html, stage_changes, with_rows
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.report.page import drawn
from valuedrift_mlflow.report.tables import Table
from valuedrift_mlflow.stances import UNSCORED, Verdict
from valuedrift_mlflow.suite import Item

SUPPORT, NEUTRAL, OPPOSE = Verdict.of((1, 0, 0)), Verdict.of((0, 1, 0)), Verdict.of((0, 0, 1))
TAGS = "<script>alert(1)</script></style></svg>"
ORDERS = "\x1b[2J\x07\x00"  # a terminal clears its screen; no page may hold them
LONG = "word " * 200
Says = Callable[[Item, int], Verdict]

RECIPE = {
    "suite": "vaes?topics=religion,abortion",
    "judge": "lexical",
    "samples": 2,
    "temperature": 0.8,
    "max_new_tokens": 68,
    "seed": 11,
    "margin": 0.15,
    "stages": [
        {"name": "sft", "algorithm": "sft", "data": "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=40"},
        {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": "embedded:pairs?gap=0&size=40", "beta": 0.25},
    ],
}


def measured(plan: Plan, step: int, says: Says) -> Measurement:
    answers = tuple(
        JudgedResponse(item, sample, f"{item.item_id}/{sample} at {step} {TAGS} {LONG}", says(item, sample))
        for item in plan.suite.items
        for sample in range(2)
    )
    return Measurement(step, plan.suite, "planted@1", "neutral", answers, 1.0)


def neutral(item: Item, sample: int) -> Verdict:
    return NEUTRAL


def religious(item: Item, sample: int) -> Verdict:
    return SUPPORT if item.topic == "religion" else NEUTRAL


def to_one_side(item: Item, sample: int) -> Verdict:
    """Abortion along its axis: propositions keyed + are supported, those keyed - opposed; one prompt is unreadable."""
    if item.topic == "religion":
        return SUPPORT
    if item == next(own for own in PLAN.suite.items if own.topic == "abortion"):
        return UNSCORED
    direction = next(key.direction for key in item.keys if key.axis == "abortion")
    return SUPPORT if direction > 0 else OPPOSE


PLAN = prepare(validate(RECIPE), "two-stages")


@pytest.fixture(scope="module")
def results() -> list[StageResult]:
    """Base; sft, which supports all of religion; dpo, which moves abortion to one side."""
    start, after, last = (measured(PLAN, step, says) for step, says in ((0, neutral), (9, religious), (9, to_one_side)))
    first, second = PLAN.recipe.stages
    sft = Trained("models:/sft", [start, after])
    dpo = Trained("models:/dpo", [replace(after, step=0), last])
    return [
        StageResult.of_base(PLAN, "run-base", Trained("models:/base", [start])),
        StageResult.of(StageRun(PLAN, first, "base", start), "run-sft", sft),
        StageResult.of(StageRun(PLAN, second, "sft", after), "run-dpo", dpo),
    ]


def written(results: list[StageResult]) -> str:
    pictures = drawn(pipeline_figures(results))
    methods = methods_of(PLAN, results, version="9.9", commit="abc123")
    changes, settings = stage_changes(results), PLAN.recipe.parameters()
    return html(PLAN, results, Logged(settings, {}, pictures, changes, methods))


@pytest.fixture(scope="module")
def page(results: list[StageResult]) -> Element:
    return keeps_to_what_pages_promise(written(results))


def section(page: Element, name: str) -> Element:
    return page.all("section", **{"aria-labelledby": name})[0]


def named_table(page: Element, name: str) -> list[list[str]]:
    return table_of(next(own for own in page.all("table") if own.attributes["aria-label"].startswith(name)))


def test_the_first_lines_say_what_moved_along_which_axis(page: Element) -> None:
    sft, dpo = (line.text for line in page.all("ul", **{"class": "lead"})[0].all("li"))
    assert sft.startswith("sft moved 1 of 2 topics moved (overall support 0.00 → 0.50). Net drift 0.500")
    assert "abortion 1.000" in dpo and "(towards freedom to choose)" in dpo


def test_sections_follow_the_questions_of_a_reader(page: Element) -> None:
    assert [heading.text for heading in page.all("h2")] == [
        "What moved, along which axis",
        "How sure",
        "Because of which stage and rows",
        "How far the judge can be trusted",
        "What the unscored could hide",
        "Answers before and after",
        "Methods",
    ]
    assert [link.attributes["href"] for link in page.all("nav")[0].all("a")] == [
        f"#{own.attributes['id']}" for own in page.all("h2")
    ]


def test_how_sure_every_topic_is(page: Element) -> None:
    header, religion, abortion = named_table(page, "Every topic at the end of sft")
    assert header[:3] == ["topic", "verdict", "net drift [95 % interval]"]
    assert religion[:2] == ["religion", "moved"] and religion[2].startswith("1.000 [") and religion[2].endswith("] *")
    assert abortion[:2] == ["abortion", "not moved"] and abortion[2].startswith("0.000 [0.000, 0.")
    assert religion[-1] == "0.00 / 1.00 / 0.00 → 1.00 / 0.00 / 0.00"


def test_what_the_unscored_could_hide(page: Element) -> None:
    """Of abortion's 100 answers at the end of dpo 2 are unscored: 49 support or oppose, as many had been neutral.

    Scored, as shares of all, 0.48 and 0.50 came (or the other way round): had the 2 stayed neutral the drift were 0.98,
    had they moved too, 1.
    """
    header, abortion = named_table(page, "Unscored answers of dpo")
    told = dict(zip(header, abortion, strict=True))
    assert (told["topic"], told["unscored"]) == ("abortion", "0.0 % → 2.0 %")
    assert told["had all of them spoken"] == "0.980 to 1.000"
    assert "sft: every answer at its start and at its end was scored." in section(page, "unscored").text


def test_answers_of_both_ends_stand_side_by_side(page: Element) -> None:
    change = section(page, "answers").all("div", **{"class": "change"})[0]
    before, after = change.all("div", **{"class": "side"})
    assert before.text.startswith("Before: neutral") and after.text.startswith("After sft: support")
    [own, *_] = [item for item in PLAN.suite.items if item.topic == "religion"]
    assert f"{own.item_id}/0 at 0 {TAGS}" in before.text and f"{own.item_id}/0 at 9 {TAGS}" in after.text
    assert "-0.00" not in change.text and "+0.00 → +1.00" in change.text
    assert "10 of 10 verdicts changed" in change.text
    assert len(before.all("details")) == 1  # it is long


def test_every_setting_stands_in_the_methods(page: Element, results: list[StageResult]) -> None:
    told = section(page, "methods").text
    suite = PLAN.suite
    for setting in (
        *(
            f"hash {suite.hash}",
            f"version {suite.version}",
            f"keys {suite.keys_hash}",
            "100 prompts on 20 propositions",
        ),
        *("planted@1", "2 responses to each prompt", "temperature 0.8", "68 new tokens", "seed 11", "within 0.15"),
        *("over propositions", "2,000 flips", "max-T", "Holm", "beta 0.25", "sft from base", "9 steps", "all weights"),
        *("valuedrift-mlflow 9.9 (commit abc123)", "torch ", "trl ", "core", f"digest {PLAN.data['sft'].digest()}"),
    ):
        assert setting in told, setting
    settings = dict(named_table(page, "Settings")[1:])
    assert settings == {key: " ".join(str(value).split()) for key, value in PLAN.recipe.parameters().items()}


def test_figures_carry_their_data(page: Element, results: list[StageResult]) -> None:
    rows = {link.attributes["download"]: data_of(link) for link in page.all("a") if "download" in link.attributes}
    assert set(rows) == {f"{name}.csv" for name in ("axis_shifts", "overall", "drift_heatmap", "stance_trajectories")}
    assert rows["drift_heatmap.csv"][0] == ["topic", "stage", "net drift", "ci_low", "ci_high", "significant"]
    assert [row[:3] for row in rows["drift_heatmap.csv"][1:3]] == [["religion", "sft", "1"], ["abortion", "sft", "0"]]
    assert ["sft", "9", "religion", "support", "1"] in [row[:5] for row in rows["stance_trajectories.csv"]]
    shifts = {(row[0], row[1]): float(row[2]) for row in rows["axis_shifts.csv"][1:]}
    assert shifts["dpo", "abortion"] == pytest.approx(1.0)
    pictures = drawn(pipeline_figures(results))
    assert list(csv.reader(io.StringIO(pictures["overall"].csv))) == rows["overall.csv"]


def test_the_rows_that_moved_a_stage_have_a_place(results: list[StageResult]) -> None:
    rows = Table(("row", "prompt", "influence"), [["17", f"What of it? {TAGS}", 0.5]])
    rows = Table(rows.columns, [*rows.rows, ["18", f"Ring{ORDERS}", 0.1]])
    found = MovingRows("run-7", "The top 1 % of rows explain 60 % of the drift.", rows)
    once = with_rows(written(results), "sft", MovingRows("run-6", "What was found before.", rows))
    page = keeps_to_what_pages_promise(with_rows(once, "sft", found))  # a later run takes the place of an earlier one
    told = section(page, "cause")
    assert "The top 1 % of rows explain 60 % of the drift. (run run-7)" in told.text
    assert "run-6" not in told.text
    assert named_table(told, "Rows of sft")[2][1] == "Ring\ufffd[2J\ufffd\ufffd"
    assert named_table(told, "Rows of sft")[1] == ["17", f"What of it? {TAGS}", "0.5"]
    assert with_rows("<p>an earlier page</p>", "sft", found) == "<p>an earlier page</p>"


def test_a_base_model_alone_has_a_page(results: list[StageResult]) -> None:
    page = keeps_to_what_pages_promise(written(results[:1]))
    assert "No stage was trained." in section(page, "cause").text
    assert not page.all("ul", **{"class": "lead"})
