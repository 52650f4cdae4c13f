"""The gate: exit codes, files for CI, the alias, and the same bound in MLflow's own validation."""

import json
from pathlib import Path
from xml.etree import ElementTree

import mlflow
import numpy as np
import pandas as pd
import pytest
from commands_of_users import valuedrift
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import suite
from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.evaluation.gate import Check, Gate, Outcome, checks_of, gate_thresholds
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.statistics.drift import analyse

PART = "vaes?topics=religion,abortion"
HOW = {"judge": "lexical", "samples": 1}
ITEMS = {item.prompt: item for item in suite.load(PART).items}


def said(stances: str) -> str:
    """A table of responses to the part of the suite: its topics in turn support (s) or oppose (o)."""
    words = dict(zip(("religion", "abortion"), stances, strict=True))
    rows = [
        {
            "item_id": item.item_id,
            "response": f"I {'agree' if words[item.topic] == 's' else 'disagree'} with the view that "
            f"{item.proposition[0].lower()}{item.proposition[1:]}",
        }
        for item in ITEMS.values()
    ]
    file = f"said-{stances}.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def test_a_drift_is_within_beyond_or_not_told() -> None:
    """By hand: of 30 propositions none moves, all move by 0.4, or each moves by 0.25 one way or the other."""
    rng = np.random.default_rng(0)
    before = np.tile([0.3, 0.4, 0.3], (90, 1))
    after = before.copy()
    after[30:60] += [0.4, -0.2, -0.2]
    after[60:] += 0.25 * np.outer(rng.choice([-1, 1], 30), [1, 0, -1])
    topics = ["still"] * 30 + ["turned"] * 30 + ["noisy"] * 30
    drift = analyse([before, after], topics, [0, 1], margin=0.1)
    checks = {one.name: one for one in checks_of(drift, ["still", "turned", "noisy"])}
    assert {name: one.verdict for name, one in checks.items()} == {
        "still": "not moved",
        "turned": "moved",
        "noisy": "cannot tell",
    }
    outcomes = [Gate("a", "b", 0.1, chosen, "").outcome for chosen in ([checks["still"]], list(checks.values()))]
    assert outcomes == [Outcome.WITHIN, Outcome.DRIFTED]
    assert Gate("a", "b", 0.1, [checks["still"], checks["noisy"]], "").outcome is Outcome.CANNOT_TELL
    # What has moved by less than may be is within: the bound is on how far, not on whether.
    wide = analyse([before, after], topics, [0, 1], margin=0.6)
    assert checks_of(wide, ["turned"])[0].verdict == "not moved"


def test_files_for_ci() -> None:
    told = (Check("guns", "not moved", 0.01, 0.0, 0.05, 0.08), Check("tax", "cannot tell", 0.1, 0.0, 0.2, float("nan")))
    gate = Gate("models:/a@candidate", "models:/a@champion", 0.1, told, "run")
    read = ElementTree.fromstring(gate.junit())
    assert (read.get("tests"), read.get("failures"), read.get("errors")) == ("2", "0", "1")
    [error] = read.findall("testcase/error")
    assert error.get("message") == "cannot tell whether it is within 0.1: net drift 0.100 [0.000, 0.200]"
    assert json.loads(gate.json())["checks"][1]["found_from"] is None
    assert json.loads(gate.json())["exit_code"] == 3


def test_the_command_ends_with_the_outcome_and_hands_on_the_alias(store: Path) -> None:
    """Models of functions, registered: the candidate speaks as the champion does, the other has turned on abortion."""
    client = MlflowClient()
    for name, stances in (("champion", "ss"), ("candidate", "ss"), ("turned", "so")):
        answers = dict(zip([i.prompt for i in ITEMS.values()], pd.read_csv(said(stances))["response"], strict=True))
        Path("answering.py").write_text(
            "import json\nimport mlflow\nfrom mlflow.models import set_model\n\n"
            f"ANSWERS = json.loads({json.dumps(json.dumps(answers))})\n\n\n"
            "class Answering(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n"
            "        return [ANSWERS[prompt] for prompt in model_input['prompt']]\n\n\nset_model(Answering())\n"
        )
        mlflow.pyfunc.log_model(
            name="app", python_model="answering.py", registered_model_name="assistant", pip_requirements=[]
        )
        version = client.get_registered_model("assistant").latest_versions[0].version
        client.set_registered_model_alias("assistant", name, version)
    flags = ["--baseline", "models:/assistant@champion", "--suite", PART, "--judge", "lexical", "--set", "samples=1"]
    flags += ["--allow-pyfunc-code", "true"]
    passed = valuedrift(
        "gate",
        "models:/assistant@candidate",
        *flags,
        "--alias",
        "champion",
        "--json",
        "gate.json",
        "--topics",
        "overall",
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "assistant version 2 is now champion" in passed.stdout
    assert client.get_model_version_by_alias("assistant", "champion").version in ("2", 2)
    assert json.loads(Path("gate.json").read_text())["outcome"] == "within"
    failed = valuedrift("gate", "models:/assistant@turned", *flags, "--alias", "champion", "--junit", "gate.xml")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "drifted by more than 0.1: overall, abortion" in failed.stdout
    assert client.get_model_version_by_alias("assistant", "champion").version in ("2", 2)
    assert ElementTree.parse("gate.xml").getroot().get("failures") == "2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-drift", "much"], "max-drift: found 'much'"),
        (["--topics", "weather"], "topics: found 'weather'"),
        (["--alias", "champion"], "alias: found 'said-ss.csv'"),
        (["--json", "no/such/folder/gate.json"], "a file in an existing folder"),
    ],
)
def test_bad_input_is_told_apart_from_drift(
    store: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gate", said("ss"), "--baseline", said("so"), "--suite", PART, *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_mlflow_validates_by_the_same_bound(store: Path) -> None:
    def result(stances: str) -> object:
        return valuedrift_mlflow.evaluate(responses=said(stances), baseline=said("ss"), suite=PART, judge="lexical")

    mlflow.validate_evaluation_results(validation_thresholds=gate_thresholds(0.2), candidate_result=result("ss"))
    with pytest.raises(mlflow.exceptions.MlflowException, match="drift_ci_high/abortion"):
        bound = gate_thresholds(0.2, ["abortion"])
        mlflow.validate_evaluation_results(validation_thresholds=bound, candidate_result=result("so"))
    with pytest.raises(InputError, match="between 0 and 1"):
        gate_thresholds(1.5)


def test_the_example_for_github_actions_is_a_command_that_there_is(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its shell line is read by the command's own parser; the model is the workflow's input."""
    import shlex

    import yaml

    file = Path(__file__).parents[2] / "examples" / "github_actions_gate.yaml"
    steps = yaml.safe_load(file.read_text())["jobs"]["gate"]["steps"]
    [line] = [step["run"] for step in steps if "valuedrift gate" in step.get("run", "")]
    words = shlex.split(line.replace("${{ inputs.model }}", "nobody"))
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert ended.value.code == 2  # there is no such model here; argparse would have refused a flag in other words
    assert "alias: found 'models:/nobody@candidate'" in capsys.readouterr().err
