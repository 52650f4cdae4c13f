"""A reference file beside responses of known stances: what is logged, and what is refused."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.evaluation.reference import load_reference
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe.read import validate

PART = "vaes?topics=religion,abortion&per_topic=20"
SUITE = suite.load(PART)


def said(supporting: dict[int, float]) -> str:
    """Responses of which, at each step, this share of the prompts supports and the others oppose."""
    rows = []
    for step, share in supporting.items():
        for place, item in enumerate(SUITE.items):
            way = "agree" if (place % 10) < 10 * share else "do not agree"
            proposition = item.proposition[0].lower() + item.proposition[1:]
            rows.append({"item_id": item.item_id, "step": step, "response": f"I {way} that {proposition}"})
    pd.DataFrame(rows).to_csv("said.csv", index=False)
    return "said.csv"


def reference(rows: list[dict[str, object]], name: str = "people.csv") -> str:
    pd.DataFrame(rows).to_csv(name, index=False)
    return name


def people(support: float, **more: object) -> list[dict[str, object]]:
    return [
        {"topic": topic, "support": support, "neutral": 0, "oppose": 1 - support, **more}
        for topic in ("religion", "abortion", "elsewhere")
    ]


def test_an_evaluation_tells_whether_it_came_nearer(store: Path) -> None:
    """From all oppose to all support, and people who support: 1 away, then at them, but for what the judge hedges."""
    result = valuedrift_mlflow.evaluate(
        responses=said({0: 0.0, 10: 1.0}), suite=PART, judge="lexical", reference=reference(people(1.0, n=50))
    )
    start, end = (
        np.abs(np.array(own) - (1, 0, 0)).sum() / 2
        for own in ((0.0, 0.0, 1.0), [result.metrics[f"stance/religion/{s}"] for s in ("support", "neutral", "oppose")])
    )
    assert result.metrics["reference_distance/religion"] == pytest.approx(end)
    assert result.metrics["reference_distance_change/overall"] == pytest.approx(end - start, abs=0.1)
    assert result.metrics["reference_distance_change_ci_high/overall"] < -0.7
    table = result.tables["reference_distance"]
    assert table["topic"].tolist() == ["religion", "abortion", "overall"] * 2
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/report.html")).read_text()
    assert "nearer than at the start" in report
    figures = {file.path for file in MlflowClient().list_artifacts(result.run_id, "figures")}
    assert "figures/reference_distance.png" in figures


def test_nothing_that_moved_cannot_be_told(store: Path) -> None:
    result = valuedrift_mlflow.evaluate(
        responses=said({0: 0.5, 10: 0.5}), suite=PART, judge="lexical", reference=reference(people(0.2))
    )
    assert abs(result.metrics["reference_distance_change/overall"]) < 1e-9
    assert (
        "cannot tell whether nearer or farther"
        in Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/report.html")).read_text()
    )


def test_a_run_is_a_reference_for_itself(store: Path) -> None:
    first = valuedrift_mlflow.evaluate(responses=said({0: 0.5}), suite=PART, judge="lexical")
    again = valuedrift_mlflow.evaluate(
        responses=said({0: 0.5}), suite=PART, judge="lexical", reference=f"runs:/{first.run_id}"
    )
    assert again.metrics["reference_distance/overall"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("form", ["counts", "proposition", "item_id", "jsonl"])
def test_forms_of_a_reference(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shares = {"support": 0.5, "neutral": 0.25, "oppose": 0.25}
    if form == "counts":
        name = reference([{"topic": "religion", "support": 20, "neutral": 10, "oppose": 10}])
    elif form == "jsonl":
        name = "people.jsonl"
        Path(name).write_text(json.dumps({"topic": "religion", **shares, "n": 40}))
    else:
        item = SUITE.items[0]
        name = reference([{form: getattr(item, form), **shares, "n": 40}])
    read = load_reference(name, SUITE)
    assert read.target.stances.tolist() == [[0.5, 0.25, 0.25]]
    assert read.target.counts.tolist() == [40]
    spoken = {"proposition": sum(item.proposition == SUITE.items[0].proposition for item in SUITE.items), "item_id": 1}
    assert (read.target.row >= 0).sum() == spoken.get(form, 20)


def people_of(*shares: tuple[float, float, float], **more: object) -> list[dict[str, object]]:
    """A row of each of the two topics, in this order."""
    return [
        {"topic": topic, "support": own[0], "neutral": own[1], "oppose": own[2], **more}
        for topic, own in zip(("religion", "abortion"), shares, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "stances", "counts", "said"),
    [
        # One person who supports, beside four of another topic: a count, not a share that is exact.
        (people_of((1, 0, 0), (2, 1, 1)), [[1, 0, 0], [0.5, 0.25, 0.25]], [1, 4], "read as counts"),
        (people_of((1, 0, 0), (0.5, 0.25, 0.25)), [[1, 0, 0], [0.5, 0.25, 0.25]], [np.inf] * 2, "taken as exact"),
        # Percentages that were rounded: their sums are 99 and 101.
        (
            people_of((33, 33, 33), (51, 25, 25)),
            [[33 / 99] * 3, [51 / 101, 25 / 101, 25 / 101]],
            [np.inf] * 2,
            "percent",
        ),
        (
            people_of((50, 25, 25), (62.5, 12.5, 25), n=80),
            [[0.5, 0.25, 0.25], [0.625, 0.125, 0.25]],
            [80] * 2,
            "percent",
        ),
        # A hundred people on one topic, forty on the other.
        (people_of((50, 25, 25), (20, 10, 10)), [[0.5, 0.25, 0.25]] * 2, [100, 40], "read as counts"),
    ],
)
def test_what_numbers_are_is_told_from_all_rows(
    rows: list[dict[str, object]],
    stances: list[list[float]],
    counts: list[float],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    read = load_reference(reference(rows), SUITE)
    np.testing.assert_allclose(read.target.stances, stances)
    assert read.target.counts.tolist() == counts
    assert said in read.said


def test_names_may_be_written_with_capitals_and_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = load_reference(reference([{"Topic ": " Religion", "SUPPORT": 5, "Neutral": 3, "oppose": 2, "N": 40}]), SUITE)
    assert read.target.counts.tolist() == [40]
    assert (read.target.row >= 0).sum() == 20


def test_a_table_without_rows_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("topic,support,neutral,oppose\n")
    with pytest.raises(InputError, match=r"reference empty\.csv: found 'no rows', allowed: at least one row"):
        load_reference("empty.csv", SUITE)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            people_of((0.5, 0.25, 0.25), (20, 10, 11)),
            "row 2 support, neutral, oppose: found 'a sum of 41', allowed: in all",
        ),
        ([{"topic": "religion", "support": 1, "neutral": 0}], "add oppose"),
        ([{"support": 1, "neutral": 0, "oppose": 0}], "add topic"),
        ([{"topic": "religion", "support": 0.5, "neutral": 0.1, "oppose": 0.1}], "row 1 support, neutral, oppose"),
        ([{"topic": "religion", "support": -1, "neutral": 1, "oppose": 1}], "at least 0"),
        ([{"topic": "religion", "support": "many", "neutral": 1, "oppose": 1}], "shares or counts"),
        ([{"topic": "religion", "support": 1, "neutral": 0, "oppose": 0, "n": -3}], "row 1 n"),
        ([{"topic": "religion", "support": 1, "neutral": 0, "oppose": 0}] * 2, "each once"),
        ([{"topic": "chess", "support": 1, "neutral": 0, "oppose": 0}], "such as abortion, religion"),
    ],
)
def test_a_bad_reference_is_refused(
    rows: list[dict[str, object]], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        load_reference(reference(rows), SUITE)


def test_a_reference_that_is_not_there_is_refused_before_anything_is_measured(store: Path) -> None:
    with pytest.raises(InputError, match=r"reference: found 'nowhere\.csv'"):
        valuedrift_mlflow.evaluate(responses=said({0: 0.5}), suite=PART, judge="lexical", reference="nowhere.csv")


def test_the_command_says_whether_it_came_nearer(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people_file = reference(people(1.0))
    command = ["evaluate", "--responses", said({0: 0.0, 10: 1.0}), "--suite", PART, "--judge", "lexical"]
    main([*command, "--reference", people_file, "--dry-run"])
    told = capsys.readouterr().out
    assert "people.csv: 2 of 2 topics, taken as exact where n is not given; rows of nothing that the suite" in told
    main([*command, "--reference", people_file])
    assert "over 2 topics: nearer than at the start (-0." in capsys.readouterr().out


def test_a_recipe_with_a_bad_reference_is_refused_with_all_its_problems(store: Path) -> None:
    stage = {"algorithm": "sft", "name": "sft", "data": "nothing.jsonl", "learning_rate": 1e-4}
    recipe = validate({"suite": PART, "reference": "nowhere.csv", "stages": [stage]})
    with pytest.raises(InputError) as refused:
        prepare(recipe, "recipe")
    assert any(line.startswith("reference: found 'nowhere.csv'") for line in refused.value.problems)
    assert any("nothing.jsonl" in line for line in refused.value.problems)
