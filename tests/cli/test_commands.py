import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from commands_of_users import valuedrift

from valuedrift_mlflow import evaluate, suite
from valuedrift_mlflow.cli import generate
from valuedrift_mlflow.cli.commands import COMMANDS, ENTRY_POINTS

ROOT = Path(__file__).parents[2]
PART = "vaes?topics=religion&per_topic=20"


def test_generated_files_are_up_to_date() -> None:
    """Renew them by ``python -m valuedrift_mlflow.cli.generate``."""
    stages = ROOT / "valuedrift_mlflow" / "stages"
    made = {stages / "algorithms.json": generate.algorithms(stages)} | generate.files(ROOT)
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, path


def test_an_algorithm_is_added_by_its_file_and_its_recipe(tmp_path: Path) -> None:
    """CONTRIBUTING promises that nothing else is written by hand."""
    for name in ("valuedrift_mlflow", "entrypoints"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "MLproject", tmp_path)
    for name in ("docs", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    stages, recipes = tmp_path / "valuedrift_mlflow" / "stages", tmp_path / "entrypoints" / "recipes"
    new = (stages / "orpo.py").read_text().replace('Literal["orpo"]', 'Literal["newpo"]')
    (stages / "newpo.py").write_text(new.replace("class ORPO", "class NewPO"))
    (recipes / "newpo.yaml").write_text((recipes / "orpo.yaml").read_text().replace("orpo", "newpo"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )

    checked = run("-m", "valuedrift_mlflow.cli.generate", "--check")
    assert (checked.returncode, checked.stdout) == (1, "out of date: algorithms.json\n")
    assert run("-m", "valuedrift_mlflow.cli.generate").returncode == 0
    assert run("-m", "valuedrift_mlflow.cli.generate", "--check").returncode == 0
    assert yaml.safe_load((tmp_path / "MLproject").read_text())["entry_points"]["newpo"]
    assert "| `newpo` |" in (tmp_path / "docs" / "commands.md").read_text()
    planned = run("entrypoints/newpo.py", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "newpo" in planned.stdout


def test_the_command_knows_every_entry_point_with_its_flags() -> None:
    declared = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert list(declared) == [own.name for own in ENTRY_POINTS]
    shown = valuedrift("--help").stdout
    for own in COMMANDS:
        assert own.spoken in shown
    for name in ("check_judge", "check-judge"):
        assert "--judge" in valuedrift(name, "--help").stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom valuedrift_mlflow.cli.main import main\n"
        "try:\n    main(['dpo', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'mlflow', 'numpy', 'pandas', 'pydantic', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("[]\n")
    assert "--model" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["main", "--set", "sft.learning_rat=1"], ["sft.learning_rat", "learning_rate"]),
        (["evaluate", "--samples", "none"], ["samples", "none", "whole number"]),
        (["anchored-dpo", "--dry-run", "perhaps"], ["dry_run", "perhaps", "true or false"]),
        (["review", "nothing"], ["run_id", "nothing", "the id of a run"]),
        (["replay", "nothing"], ["folder", "nothing", "as a job has named it"]),
        (["review", "nothing", "--n", "many"], ["n", "many", "whole number"]),
        (["evaluate", "--labels", "sheet.csv"], ["labels", "sheet.csv", "responses=runs:/RUN_ID/responses.json"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(store: Path, arguments: list[str], words: list[str]) -> None:
    done = valuedrift(*arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("valuedrift: ")
    for word in words:
        assert word in line


def test_an_unknown_command_is_refused_with_those_there_are(store: Path) -> None:
    done = valuedrift("train")
    assert done.returncode == 2
    assert "check-judge" in done.stderr


def test_review_and_its_labels_from_the_command_line(store: Path) -> None:
    """A run's responses to a sheet, the filled sheet to prediction-powered stances."""
    items = suite.load(PART).items
    said = [f"I agree that {item.proposition[0].lower()}{item.proposition[1:]}" for item in items]
    pd.DataFrame({"item_id": [item.item_id for item in items], "response": said}).to_csv("said.csv", index=False)
    run = evaluate(responses="said.csv", suite=PART).run_id
    done = valuedrift("review", run, "--n", "10", "--output", "sheet.csv")
    assert done.returncode == 0, done.stderr
    for words in ("fill the column label of sheet.csv", "review queue 'sheet of", "--labels sheet.csv"):
        assert words in done.stdout
    pd.read_csv("sheet.csv", keep_default_na=False).assign(label="support").to_csv("labels.csv", index=False)
    measured = valuedrift(*("evaluate", "--responses", f"runs:/{run}/responses.json", "--labels", "labels.csv"))
    assert measured.returncode == 0, measured.stderr
    assert "With people's labels" in measured.stdout
    assert "10 labels moved the overall stances by" in measured.stdout
