"""What may be evaluated and against what: functions, suites in memory, earlier evaluations."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.evaluation.subjects import suite_of
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion&per_topic=6"
HOW = {"judge": "lexical", "samples": 1}
BY_MLFLOW = {"model_type": "value-drift", "evaluators": "value_drift"}


def said(prompts: pd.Series, stance: str) -> list[str]:
    by_prompt = {item.prompt: item for item in suite.load(PART).items}
    return [
        f"I {stance} the view that {by_prompt[p].proposition[0].lower()}{by_prompt[p].proposition[1:]}" for p in prompts
    ]


def agreeing(table: pd.DataFrame) -> list[str]:
    return said(table["prompt"], "agree with")


def opposing(table: pd.DataFrame) -> list[str]:
    return said(table["prompt"], "disagree with")


@pytest.mark.parametrize("form", ["frame", "rows", "genai", "uri"])
def test_a_function_on_a_suite_of_any_form(store: Path, form: str) -> None:
    frame = suite.load(PART).frame()
    rows = frame.to_dict("records")
    genai = [
        {"inputs": {"question": row["prompt"]}, "expectations": {k: v for k, v in row.items() if k != "prompt"}}
        for row in rows
    ]
    asked = {"frame": frame, "rows": rows, "genai": genai, "uri": PART}[form]
    result = valuedrift_mlflow.evaluate(agreeing, suite=asked, **HOW)
    assert result.metrics["stance/religion/support"] > 0.9
    assert suite_of(asked).hash == suite.load(PART).hash
    run = MlflowClient().get_run(result.run_id)
    assert run.info.run_name == "evaluate · agreeing"
    assert run.data.params["model"] == "agreeing"


@pytest.mark.parametrize(("by", "path"), [("mlflow", ""), ("us", "/responses.json")])
def test_an_earlier_evaluation_is_a_baseline(store: Path, by: str, path: str) -> None:
    frame = suite.load(PART).frame()
    settings = {**BY_MLFLOW, "evaluator_config": HOW}
    if by == "mlflow":
        before = mlflow.models.evaluate(agreeing, frame, **settings)
    else:
        before = valuedrift_mlflow.evaluate(agreeing, suite=frame, **HOW)
    settings["evaluator_config"] = {**HOW, "baseline": f"runs:/{before.run_id}{path}"}
    after = mlflow.models.evaluate(opposing, frame, **settings)
    assert after.metrics["drift/religion"] > 0.9
    again = valuedrift_mlflow.evaluate(responses=f"runs:/{after.run_id}", baseline=f"runs:/{before.run_id}", **HOW)
    assert again.metrics["drift/religion"] == after.metrics["drift/religion"]


def test_a_run_of_mlflows_own_evaluation_says_what_it_is(store: Path) -> None:
    frame = suite.load(PART).frame()
    result = mlflow.models.evaluate(agreeing, frame, **BY_MLFLOW, evaluator_config=HOW)
    run = MlflowClient().get_run(result.run_id)
    assert run.data.tags["valuedrift.role"] == "evaluation"
    assert run.data.params["samples"] == "1"
    assert "vaes" in {entry.dataset.name for entry in run.inputs.dataset_inputs}
    with mlflow.start_run(run_name="mine") as mine:
        mlflow.models.evaluate(agreeing, frame, **BY_MLFLOW, evaluator_config=HOW)
    assert MlflowClient().get_run(mine.info.run_id).info.run_name == "mine"


def test_a_pipeline_and_a_pair_in_memory_answer_as_their_folder_does(store: Path, random_folder: Path) -> None:
    from transformers import pipeline

    from valuedrift_mlflow import models

    loaded = models.load_model(str(random_folder))
    piped = pipeline("text-generation", model=loaded.model, tokenizer=loaded.tokenizer)
    how = {**HOW, "suite": "vaes?topics=religion&per_topic=2", "max_new_tokens": 4}
    said = [
        valuedrift_mlflow.evaluate(one, **how).tables["responses"]["response"].tolist()
        for one in (str(random_folder), (loaded.model, loaded.tokenizer), piped)
    ]
    assert said[0] == said[1] == said[2]
    with pytest.raises(InputError, match=r"\(model, tokenizer\)"):
        valuedrift_mlflow.evaluate(loaded.model, **how)


def test_what_cannot_be_asked_is_refused(store: Path) -> None:
    with pytest.raises(InputError, match=r"model: found 'int', allowed: a URI, a function"):
        valuedrift_mlflow.evaluate(7, suite=PART)
    with pytest.raises(InputError, match=r"said.json suite: found .*give the suite"):
        Path("said.json").write_text('[{"item_id": "a", "response": "Yes.", "suite": "frame@frame#00"}]')
        valuedrift_mlflow.evaluate(responses="said.json")
