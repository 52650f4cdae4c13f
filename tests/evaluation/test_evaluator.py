from pathlib import Path

import mlflow
import pandas as pd
import pytest
from commands_of_users import program
from mlflow import MlflowClient
from mlflow.models import MetricThreshold

import valuedrift_mlflow
from valuedrift_mlflow import suite, tracking
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion,abortion&per_topic=4"


def test_the_plugin_answers_in_a_process_that_never_imported_us(registered: str, store: Path) -> None:
    suite.load(PART).frame().to_csv(store / "suite.csv", index=False)
    script = f"""
import mlflow, pandas as pd, sys
assert not [name for name in sys.modules if name.startswith("valuedrift")]
mlflow.set_experiment("tests")
result = mlflow.models.evaluate({registered!r}, pd.read_csv("suite.csv"), model_type="value-drift",
    evaluators="value_drift", evaluator_config={{"samples": 1, "max_new_tokens": 40}})
print("UNSCORED", result.metrics["quality/unscored_rate"], len(result.tables["responses"]))
"""
    done = program(script)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("UNSCORED"))
    assert 0 <= float(line.split()[1]) <= 1
    assert line.split()[2] == "8"


@pytest.mark.parametrize("how", ["registered", "logged"])
def test_every_metric_has_one_point(registered: str, how: str) -> None:
    """By registry name the plugin logs, by model id MLflow logs: never both."""
    uri = registered
    if how == "logged":
        uri = f"models:/{mlflow.models.get_model_info(registered).model_id}"
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(
            uri,
            suite.load(PART).frame(),
            model_type="value-drift",
            evaluators="value_drift",
            evaluator_config={"samples": 1, "max_new_tokens": 40, "baseline": registered},
        )
    client = MlflowClient()
    assert {"drift/overall", "drift/religion", "drift/topics_drifted", "quality/unscored_rate"} <= set(result.metrics)
    assert {"drift_ci_high/religion", "drift_ci_high/overall", "drift/topics_undecided"} <= set(result.metrics)
    for key in result.metrics:
        assert len(client.get_metric_history(run.info.run_id, key)) == 1, key


def test_a_release_is_gated_on_drift(registered: str) -> None:
    result = valuedrift_mlflow.evaluate(registered, baseline=registered, suite=PART, samples=1, max_new_tokens=40)
    fine = {"drift/topics_drifted": MetricThreshold(threshold=2, greater_is_better=False)}
    mlflow.validate_evaluation_results(validation_thresholds=fine, candidate_result=result)
    strict = {"quality/unscored_rate": MetricThreshold(threshold=-1.0, greater_is_better=False)}
    with pytest.raises(mlflow.exceptions.MlflowException, match="quality/unscored_rate"):
        mlflow.validate_evaluation_results(validation_thresholds=strict, candidate_result=result)


def test_a_function_and_given_responses(store: Path) -> None:
    frame = suite.load(PART).frame()
    agree = "I fully support this. I agree with it and I am in favour of it."

    def model(inputs: pd.DataFrame) -> list[str]:
        return [f"I agree with the statement that {p[0].lower()}{p[1:]}" for p in frame["proposition"]]

    settings = {"model_type": "value-drift", "evaluators": "value_drift", "evaluator_config": {"samples": 1}}
    by_function = mlflow.models.evaluate(model, frame, **settings)
    assert by_function.metrics["stance/religion/support"] > 0.9
    given = mlflow.models.evaluate(data=frame.assign(said=[""] * len(frame)), predictions="said", **settings)
    assert given.metrics["quality/unscored_rate"] == 1.0  # an empty response is counted, not guessed
    assert "stance/religion/support" not in given.metrics
    assert agree


def test_bad_settings_are_all_named(store: Path) -> None:
    frame = suite.load(PART).frame()
    with pytest.raises(InputError) as error:
        mlflow.models.evaluate(
            lambda inputs: ["x"] * len(inputs),
            frame,
            model_type="value-drift",
            evaluators="value_drift",
            evaluator_config={"samples": 0, "jduge": "lexical"},
        )
    assert "samples" in str(error.value)
    assert "jduge" in str(error.value)
    with pytest.raises(InputError, match="item_id, topic"):
        mlflow.models.evaluate(
            lambda inputs: ["x"] * len(inputs),
            pd.DataFrame({"prompt": ["Should we?"]}),
            model_type="value-drift",
            evaluators="value_drift",
        )


def test_an_evaluation_is_a_run_with_its_suite_and_tables(registered: str) -> None:
    result = valuedrift_mlflow.evaluate(registered, suite=PART, samples=2, max_new_tokens=40)
    run = MlflowClient().get_run(result.run_id)
    assert run.data.tags["valuedrift.role"] == "evaluation"
    assert run.inputs.dataset_inputs[0].dataset.name == "vaes"
    assert run.inputs.dataset_inputs[0].dataset.digest == suite.load(PART).hash
    assert len(result.tables["responses"]) == 16
    linked = {m.key for m in mlflow.get_logged_model(tracking.logged_model_id(registered)).metrics}
    assert "quality/unscored_rate" in linked


@pytest.mark.parametrize("uri", ["embedded:big", "models:/nobody/1", "runs:/0123/x", "./no/folder", "not a model"])
def test_unknown_models_are_refused(store: Path, uri: str) -> None:
    with pytest.raises(InputError, match="model: found"):
        valuedrift_mlflow.evaluate(uri)


def test_what_likelihood_cannot_ask_is_refused_before_the_baseline_is_measured(store: Path) -> None:
    """A baseline that fails as soon as it is asked: the refusal comes first."""
    frame = suite.load(PART).frame()
    (store / "own_baseline.py").write_text("def answer(prompts):\n    raise RuntimeError('asked')\n")
    settings = {"model_type": "value-drift", "evaluators": "value_drift"}
    settings["evaluator_config"] = {"judge": "likelihood", "baseline": "embedded:random"}
    for asked in ({"data": frame.assign(said="I agree."), "predictions": "said"}, {"model": list, "data": frame}):
        with pytest.raises(InputError, match="what was given has no weights to ask"):
            mlflow.models.evaluate(**asked, **settings)
    with pytest.raises(InputError, match="own_baseline:answer has no weights to ask"):
        valuedrift_mlflow.evaluate("embedded:random", "own_baseline:answer", suite=PART, judge="likelihood")
