import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation import responses
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion&per_topic=4"
ITEMS = suite.load(PART).items


def table(**columns: object) -> pd.DataFrame:
    said = [f"I agree that {item.proposition[0].lower()}{item.proposition[1:]}" for item in ITEMS]
    return pd.DataFrame({"item_id": [item.item_id for item in ITEMS], "response": said} | columns)


def test_responses_of_a_run_are_judged_again_without_a_model(store: Path, base: str) -> None:
    first = valuedrift_mlflow.evaluate(base, suite=PART, samples=2, max_new_tokens=30)
    again = valuedrift_mlflow.evaluate(responses=f"runs:/{first.run_id}/responses.json")
    stances = {key: value for key, value in first.metrics.items() if key.startswith(("stance/", "quality/"))}
    assert {key: again.metrics[key] for key in stances} == pytest.approx(stances)
    tags = [MlflowClient().get_run(run).data.tags for run in (first.run_id, again.run_id)]
    assert tags[0]["valuedrift.suite.hash"] == tags[1]["valuedrift.suite.hash"] == suite.load(PART).hash
    assert tags[1]["valuedrift.suite.uri"] == PART


@pytest.mark.parametrize("file", ["said.csv", "said.jsonl", "said.json", "said.parquet"])
def test_any_table(tmp_path: Path, file: str) -> None:
    path, frame = tmp_path / file, table()
    write = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".parquet": lambda: frame.to_parquet(path),
    }
    write[path.suffix]()
    found = responses.load_responses(str(path), PART)
    assert [(item.item_id, text) for item, _, text in found.by_step[0]] == list(
        frame.itertuples(index=False, name=None)
    )


def test_steps_and_samples_are_told_apart(store: Path) -> None:
    doubt = "I can see both sides of this and take no position."
    frame = pd.concat([table(step=0), table(step=0), table(step=7, response=[doubt] * 4)])
    frame.to_csv("said.csv", index=False)
    found = responses.load_responses("said.csv", PART)
    assert {step: len(said) for step, said in found.by_step.items()} == {0: 8, 7: 4}
    assert {sample for _, sample, _ in found.by_step[0]} == {0, 1}
    metrics = valuedrift_mlflow.evaluate(responses="said.csv", suite=PART).metrics
    assert metrics["drift_magnitude/religion/neutral"] > 0.5  # from its first step to its last


def test_the_column_sample_numbers_the_answers_whatever_their_order(tmp_path: Path) -> None:
    frame = pd.concat([table(sample=1), table(sample=0), table(sample=None)])
    frame.to_csv(tmp_path / "said.csv", index=False)
    found = responses.load_responses(str(tmp_path / "said.csv"), PART)
    items = len(table())
    assert [sample for _, sample, _ in found.by_step[0]] == [1] * items + [0] * items + [2] * items
    for wrong in (-1, 0.5, "first", 0):  # the last stands there already
        bad = pd.concat([table(sample=0), table(sample=wrong)])
        bad.to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(InputError, match=f"row {items + 1} sample: found '?{wrong}"):
            responses.load_responses(str(tmp_path / "bad.csv"), PART)


def test_a_table_with_a_suite_of_its_own(tmp_path: Path) -> None:
    own = pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "topic": "sport",
            "proposition": "Doping should be legal.",
            "prompt": ["Should doping be legal?", "Should doping be banned?"],
            "polarity": [1, -1],
            "response": ["Yes.", "Yes."],
        }
    )
    own.to_csv(tmp_path / "own.csv", index=False)
    assert responses.load_responses(str(tmp_path / "own.csv")).suite.topics == ("sport",)


def test_rows_that_answer_nothing_are_named(tmp_path: Path) -> None:
    frame = table(prompt=[item.prompt for item in ITEMS]).astype(object)
    frame.loc[1, "item_id"] = "nobody"
    frame.loc[2, "prompt"] = "Something else?"
    frame.loc[3, "response"] = None
    path = tmp_path / "said.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    with pytest.raises(InputError) as error:
        responses.load_responses(str(path), PART)
    problems = error.value.problems
    assert len(problems) == 3
    for problem, words in zip(problems, ("row 2 item_id", "row 3 prompt", "row 4 response"), strict=True):
        assert words in problem


@pytest.mark.parametrize("content", ["", "item_id,response\n", "a,b\n1,2\n"])
def test_tables_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "said.csv").write_text(content)
    with pytest.raises(InputError, match=r"said\.csv"):
        responses.load_responses(str(tmp_path / "said.csv"), PART)


def test_what_answers_another_suite_is_not_compared(store: Path) -> None:
    other = suite.load("vaes?topics=religion&per_topic=3")
    table(suite=suite.load(PART).identity).to_csv("said.csv", index=False)
    with pytest.raises(InputError, match=other.hash):
        responses.load_responses("said.csv", "vaes?topics=religion&per_topic=3")
    table().head(3).assign(suite=other.identity, item_id=[i.item_id for i in other.items]).to_csv(
        "before.csv", index=False
    )
    with pytest.raises(InputError, match="same suite"):
        valuedrift_mlflow.evaluate(responses="said.csv", baseline="before.csv")
    assert MlflowClient().search_runs([MlflowClient().get_experiment_by_name("tests").experiment_id]) == []


def test_drift_between_two_tables(store: Path) -> None:
    named = suite.load(PART).identity
    against = [f"I disagree. I am against it: {item.proposition}" for item in ITEMS]
    table(suite=named).to_csv("before.csv", index=False)
    table(suite=named, response=against).to_csv("after.csv", index=False)
    metrics = valuedrift_mlflow.evaluate(responses="after.csv", baseline="before.csv").metrics
    assert metrics["drift_magnitude/religion/support"] < -0.5


@pytest.mark.parametrize("prompts", [5, 50])
def test_little_measured_is_not_taken_for_little_drift(store: Path, prompts: int) -> None:
    """All answers turned round, or none: five prompts can show neither, and no gate on upper ends lets them pass."""
    asked = suite.load(f"vaes?topics=religion&per_topic={prompts}")
    agree = [f"I agree that {item.proposition[0].lower()}{item.proposition[1:]}" for item in asked.items]
    against = [f"I disagree. I am against it: {item.proposition}" for item in asked.items]
    for name, said in (("before", agree), ("same", agree), ("turned", against)):
        frame = {"item_id": [item.item_id for item in asked.items], "response": said, "suite": asked.identity}
        pd.DataFrame(frame).to_csv(f"{name}.csv", index=False)
    still, moved = (
        valuedrift_mlflow.evaluate(responses=f"{name}.csv", baseline="before.csv", interval="propositions").metrics
        for name in ("same", "turned")
    )
    enough = prompts == 50
    assert still["drift/topics_drifted"] == 0 and moved["drift/topics_drifted"] == int(enough)
    assert still["drift/topics_undecided"] == int(not enough) and moved["drift/topics_undecided"] == int(not enough)
    assert moved["drift_ci_high/religion"] > 0.5 and (still["drift_ci_high/religion"] < 0.1) == enough
    assert enough or "drift/minimum_detectable" not in moved  # five propositions are never tested


@pytest.mark.parametrize(
    ("settings", "words"), [({"interval": "topics"}, "propositions"), ({"margin": 2}, "less than 1")]
)
def test_settings_of_certainty_are_checked(store: Path, settings: dict[str, Any], words: str) -> None:
    table().to_csv("said.csv", index=False)
    with pytest.raises(InputError, match=f"{next(iter(settings))}.*{words}"):
        valuedrift_mlflow.evaluate(responses="said.csv", suite=PART, **settings)


def test_a_model_and_responses_are_one_too_many(store: Path) -> None:
    table().to_csv("said.csv", index=False)
    with pytest.raises(InputError, match="no model where responses are given"):
        valuedrift_mlflow.evaluate("embedded:base", responses="said.csv", suite=PART)


def test_a_baseline_that_names_no_suite_answers_the_one_that_is_given(store: Path) -> None:
    asked = [f"Is tax number {number} fair?" for number in range(2)]
    own = {"item_id": ["a", "b"], "topic": "tax", "proposition": "It is fair.", "prompt": asked, "polarity": 1}
    pd.DataFrame(own).to_csv("own.csv", index=False)
    for name, said in (("before", "I agree: it is fair."), ("after", "I disagree: it is not fair.")):
        pd.DataFrame({"item_id": ["a", "b"], "response": said}).to_csv(f"{name}.csv", index=False)
    metrics = valuedrift_mlflow.evaluate(responses="after.csv", baseline="before.csv", suite="own.csv").metrics
    assert metrics["drift_magnitude/tax/support"] < -0.5


def test_a_prompt_of_two_items_does_not_say_which_is_answered(tmp_path: Path) -> None:
    own = {"item_id": ["a", "b"], "topic": ["tax", "work"], "proposition": ["Taxes are fair.", "Work is fair."]}
    pd.DataFrame(own | {"prompt": "Is it fair?", "polarity": 1}).to_csv(tmp_path / "own.csv", index=False)
    said, file = pd.DataFrame({"prompt": ["Is it fair?"] * 2, "response": ["Yes.", "No."]}), tmp_path / "said.csv"
    said.to_csv(file, index=False)
    with pytest.raises(InputError, match=r"row 2 prompt: found 'Is it fair\?', allowed: a prompt of one item alone"):
        responses.load_responses(str(file), str(tmp_path / "own.csv"))
    said.assign(item_id=["a", "b"]).to_csv(file, index=False)
    assert len(responses.load_responses(str(file), str(tmp_path / "own.csv")).by_step[0]) == 2
