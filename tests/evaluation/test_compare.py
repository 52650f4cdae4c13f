"""Comparisons: what was measured is read, what was not is asked, and what cannot be compared is refused."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from commands_of_users import valuedrift
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.compare import prepare
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion,abortion"
HOW = {"judge": "lexical", "samples": 1, "max_new_tokens": 30}
ITEMS = {item.prompt: item for item in suite.load(PART).items}


def claiming(table: pd.DataFrame, words: str) -> list[str]:
    claims = [ITEMS[prompt].proposition for prompt in table["prompt"]]
    return [f"I {words} the view that {claim[0].lower()}{claim[1:]}" for claim in claims]


def supporting(table: pd.DataFrame) -> list[str]:
    return claiming(table, "agree with")


def opposing_abortion(table: pd.DataFrame) -> list[str]:
    said = zip(table["prompt"], claiming(table, "agree with"), claiming(table, "disagree with"), strict=True)
    return [other if ITEMS[prompt].topic == "abortion" else own for prompt, own, other in said]


@pytest.fixture
def runs(store: Path) -> tuple[str, str]:
    """Evaluations of a model that supports all, and of one that opposes one topic."""
    first, second = (valuedrift_mlflow.evaluate(one, suite=PART, **HOW) for one in (supporting, opposing_abortion))
    return first.run_id, second.run_id


def test_runs_are_compared_topic_by_topic_and_nothing_is_asked_again(runs: tuple[str, str]) -> None:
    """Planted: abortion turns wholly round, religion stays to the last answer."""
    found = valuedrift_mlflow.compare([runs[0], f"runs:/{runs[1]}"])
    topics = found.topics.set_index("topic")
    assert topics.loc["abortion", "drift"] > 0.9
    assert topics.loc["abortion", "verdict"] == "moved"
    assert topics.loc["religion", "drift"] == 0
    assert topics.loc["religion", "verdict"] == "not moved"
    assert set(found.differences["topic"]) == {"abortion"}
    assert found.overall["drift"][1] == pytest.approx(topics["drift"].mean())
    run = MlflowClient().get_run(found.run_id)
    assert run.data.tags["valuedrift.role"] == "comparison"
    assert not mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{found.run_id}'", output_format="list")
    names = {entry.path for entry in MlflowClient().list_artifacts(found.run_id)}
    assert {"report.html", "comparison.json", "comparison_topics.json", "figures"} <= names
    page = mlflow.artifacts.load_text(f"runs:/{found.run_id}/report.html")
    assert "evaluate · opposing_abortion" in page
    assert "disagree with the view" in page


def test_a_table_and_a_model_that_nobody_has_measured(runs: tuple[str, str]) -> None:
    """The command, as a user types it; the model is asked in a run below the comparison, as the others were."""
    table = mlflow.load_table("responses.json", run_ids=[runs[1]])[["item_id", "sample", "response"]]
    table.to_csv("said.csv", index=False)
    flags = ["--targets", f"said.csv,embedded:random,{runs[1]}", "--baseline", runs[0]]
    planned = valuedrift("compare", *flags, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "embedded:random (embedded:random): asked 100 times" in planned.stdout
    assert "said (said.csv): read from said.csv" in planned.stdout
    done = valuedrift("compare", *flags)
    assert done.returncode == 0, done.stderr
    assert "said: moved. 1 of 2 topics moved" in done.stdout
    [run] = mlflow.search_runs(filter_string="tags.`valuedrift.role` = 'comparison'", output_format="list")
    [below] = mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", output_format="list")
    assert below.data.params["max_new_tokens"] == "30"
    rows = mlflow.load_table("comparison_topics.json", run_ids=[run.info.run_id])
    told = rows.set_index(["target", "topic"])["drift"]
    assert told["said", "abortion"] == told["evaluate · opposing_abortion", "abortion"]


def test_what_cannot_be_compared_is_refused_or_judged_again(runs: tuple[str, str]) -> None:
    other_suite = valuedrift_mlflow.evaluate(supporting, suite="vaes?topics=religion&per_topic=2", **HOW).run_id
    with pytest.raises(InputError, match=rf"{other_suite}: found 'answers .*which can be asked anew"):
        prepare([runs[0], other_suite])
    hotter = valuedrift_mlflow.evaluate(supporting, suite=PART, **HOW, temperature=1.0).run_id
    with pytest.raises(InputError, match=r"was sampled with temperature 1.0"):
        prepare([runs[0], hotter])
    (Path.cwd() / "other_judge.py").write_text(
        "from valuedrift_mlflow.stances import Verdict\n"
        "class Doubter:\n    name = 'doubter'\n"
        "    def judge(self, answers):\n        return [Verdict.of((0.2, 0.6, 0.2)) for _ in answers]\n"
    )
    doubted = valuedrift_mlflow.evaluate(supporting, suite=PART, **HOW | {"judge": "other_judge:Doubter"}).run_id
    with pytest.raises(InputError, match=r"judge: found 'lexical .*give judge=URI"):
        prepare([runs[0], doubted])
    again = valuedrift_mlflow.compare([runs[0], doubted], judge="lexical")
    assert again.overall["drift"][1] == pytest.approx(0, abs=1e-9)  # tables keep fewer digits than verdicts have
    with pytest.raises(InputError, match=r"targets: found .*at least two"):
        prepare([runs[0]])
    with pytest.raises(InputError, match=r"baseline: found '0{32}'"):
        prepare([runs[0]], "0" * 32)
