from pathlib import Path

import mlflow
import pytest
import yaml
from commands_of_users import entry_point, mlflow_run
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parent.parent
ANSWERS, PAIRS = "embedded:sft?size=100", "embedded:pairs?size=100&gap="
TINY = (
    f"sft.data={ANSWERS} dpo-gap0.data={PAIRS}0 dpo-gap1.data={PAIRS}1 "
    "suite=vaes?topics=religion,abortion&per_topic=3 samples=1 checkpoint_samples=1 max_new_tokens=40 "
    "sft.max_steps=2 sft.checkpoint_every=1 dpo.max_steps=2 dpo.checkpoint_every=1 sft.batch_size=4 dpo.batch_size=4"
)


def all_runs() -> list[Run]:
    return list(MlflowClient().search_runs([e.experiment_id for e in MlflowClient().search_experiments()]))


def test_the_main_job(store: Path, base: str) -> None:
    done = mlflow_run("-P", f"set={TINY}")
    assert done.returncode == 0, done.stderr
    for word in ("sft step 2", "dpo-gap1", "topics moved", "mlflow ui"):
        assert word in done.stdout
    runs = all_runs()
    by_name = {run.info.run_name: run for run in runs}
    assert set(by_name) == {
        "pipeline · embedded",
        *(f"audit · {data}" for data in ("sft", "pairs gap=0", "pairs gap=1")),
        *(f"{stage} · embedded:base" for stage in ("base", "sft", "dpo-gap0", "dpo-gap1")),
    }
    assert all(run.info.status == "FINISHED" for run in runs)
    assert by_name["pipeline · embedded"].data.params["sft.max_steps"] == "2"


def test_evaluate_by_registry_uri(registered: str) -> None:
    part = "vaes?topics=religion&per_topic=4"
    done = mlflow_run(
        *("-e", "evaluate", "-P", f"model={registered}", "-P", f"baseline={registered}"),
        *("-P", f"suite={part}", "-P", "samples=2"),
    )
    assert done.returncode == 0, done.stderr
    assert "Stances of models:/assistant/1" in done.stdout
    assert "drift" in done.stdout
    [run] = [run for run in all_runs() if run.data.tags.get("valuedrift.role") == "evaluation"]
    assert run.data.params["refusal"] == "neutral"
    assert {"quality/unscored_rate", "stance/overall/support", "drift/overall"} <= set(run.data.metrics)
    assert not any(key.startswith("cost/judge") for key in run.data.metrics)  # the offline judge costs none
    assert "No topic's mean moved significantly" in run.data.tags["mlflow.note.content"]
    files = {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"report.html", "responses.json", "value_drift_table.json", "figures"} <= files
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report.html")).read_text()
    assert page.count('role="img"') == 2  # axes of values, stances


def test_check_judge(store: Path) -> None:
    done = entry_point("check_judge", "--judge", "lexical")
    assert done.returncode == 0, done.stderr
    assert "kappa" in done.stdout
    [run] = all_runs()
    assert run.info.run_name == "check_judge · lexical"
    assert {"judge/accuracy", "judge/macro_f1", "judge/kappa", "judge/coverage"} <= set(run.data.metrics)


def test_a_refused_run_is_failed_with_the_reason(store: Path) -> None:
    done = mlflow_run("-P", "set=sft.learning_rat=1")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    [run] = all_runs()
    assert run.info.status == "FAILED"
    assert "sft.learning_rat" in run.data.tags["mlflow.note.content"]
    assert run.info.run_name == "refused · main"


# Of each entry point one always runs: what is said of the others is tested where it is said.
REFUSED_TOO = [
    ("main", ["--set", "suite=vaes?topics=cats"], ["topics", "cats", "abortion"]),
    ("main", ["--set", "base.model=embedded:big"], ["base.model", "embedded:big", "embedded:base"]),
    ("main", ["--set", "dpo-gap0.from=nowhere"], ["dpo-gap0.from", "nowhere", "sft"]),
    ("main", ["--recipe", "nothing"], ["recipe", "nothing", "embedded"]),
    ("main", ["--set", "dpo.data=no.jsonl"], ["no.jsonl", "existing file"]),
    ("sft", ["--data", "EMPTY"], ["empty.jsonl", "empty"]),
    ("dpo", ["--data", "MALFORMED"], ["malformed.jsonl row 1", "no json"]),
    ("evaluate", ["--model", "models:/nobody/1"], ["model", "models:/nobody/1", "tracking store"]),
    ("evaluate", ["--samples", "none"], ["samples", "none", "whole number"]),
    ("evaluate", ["--judge", "oracle"], ["judge", "oracle", "lexical"]),
    ("evaluate", ["--model", "openai:/m"], ["OPENAI_API_KEY", "OPENAI_BASE_URL"]),
    ("evaluate", ["--responses", "none.json"], ["responses", "none.json", "existing"]),
    ("main", ["--set", "base.model=openai:/m?base_url=http://127.0.0.1:1/v1"], ["base.model", "evaluated only"]),
    ("main", ["--set", "judge=hf:./none"], ["judge", "none"]),
    ("check_judge", ["--judge", "likelihood"], ["likelihood", "reads responses"]),
]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("main", ["--set", "sft.learning_rat=1"], ["sft.learning_rat", "found 1", "learning_rate"]),
        ("dpo", ["--data", "embedded:sft"], ["embedded:sft", "messages (sft)", "prompt, chosen and rejected"]),
        ("evaluate", ["--judge", "openai:/m?votes=0&base_url=http://127.0.0.1:1/v1"], ["votes", "0"]),
        ("check_judge", ["--data", "none.csv"], ["data", "none.csv", "existing"]),
        *(pytest.param(*refused, marks=pytest.mark.slow) for refused in REFUSED_TOO),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(store: Path, name: str, arguments: list[str], words: list[str]) -> None:
    (store / "empty.jsonl").touch()
    (store / "malformed.jsonl").write_text('{"prompt": "x", "chosen"\n')
    files = {"EMPTY": "empty.jsonl", "MALFORMED": "malformed.jsonl"}
    done = entry_point(name, *[files.get(argument, argument) for argument in arguments])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("valuedrift:")]
    for word in words:
        assert word in line
    assert all_runs() == []


def test_environment_files_respect_the_exact_versions() -> None:
    lines = yaml.safe_load((ROOT / "python_env.yaml").read_text())["dependencies"]
    assert lines == ["-c constraints.txt", "-e ."]
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()


def test_every_entry_point_of_the_project_is_a_script() -> None:
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for name, declared in entry_points.items():
        assert (ROOT / "entrypoints" / f"{name}.py").is_file()
        assert declared["command"].startswith(f"python -m entrypoints.{name} ")
        shown = entry_point(name, "--help").stdout
        for parameter in declared["parameters"]:
            assert f"--{parameter}" in shown
