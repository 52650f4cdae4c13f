import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from valuedrift_mlflow.cli import generate
from valuedrift_mlflow.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def valuedrift(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "valuedrift_mlflow.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


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
    for name in ("MLproject", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
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
    assert "| `newpo` |" in (tmp_path / "README.md").read_text()
    planned = run("entrypoints/newpo.py", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "newpo" in planned.stdout


def test_the_command_knows_every_entry_point_with_its_flags() -> None:
    declared = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert list(declared) == [own.name for own in COMMANDS]
    shown = valuedrift("--help").stdout
    for name in declared:
        assert name.replace("_", "-") in shown
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
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(store: Path, arguments: list[str], words: list[str]) -> None:
    done = valuedrift(*arguments, folder=store)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("valuedrift: ")
    for word in words:
        assert word in line


def test_an_unknown_command_is_refused_with_those_there_are(store: Path) -> None:
    done = valuedrift("train", folder=store)
    assert done.returncode == 2
    assert "check-judge" in done.stderr
