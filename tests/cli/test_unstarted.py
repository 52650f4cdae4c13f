"""Dry runs import nothing of the user's: they find it, and say what the job will import."""

import sys
from pathlib import Path

import pytest
from parts_of_users import working_folder

from valuedrift_mlflow.cli.main import main

CODE = "raise SystemExit('this was imported')\ndef f(prompts, responses): ...\nclass K: ...\n"
OWN = "is code of your own, imported when the job starts (mine.py)"
CASES = {
    "reward": (["ppo", "--reward", "mine:f"], [f"ppo.reward mine:f {OWN}", "Dry run of ppo"]),
    "judge": (["evaluate", "--judge", "mine:K"], [f"judge mine:K {OWN}", "judged by mine:K"]),
    "model": (["evaluate", "--model", "mine:K", "--judge", "lexical"], [f"model mine:K {OWN}"]),
    "suite": (["evaluate", "--suite", "mine:f"], [f"Dry run: suite mine:f {OWN}"]),
    "algorithm": (["sft", "--set", "sft.algorithm=mine:K"], [f"Dry run: algorithm mine:K {OWN}"]),
}


@pytest.mark.parametrize("part", CASES)
def test_a_dry_run_imports_no_module_of_the_user(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, lines = CASES[part]
    with working_folder(tmp_path, monkeypatch) as folder:
        (folder / "mine.py").write_text(CODE)
        main([*arguments, "--dry-run"])
        shown = " ".join(capsys.readouterr().out.split())
        for line in lines:
            assert line in shown
        assert "mine" not in sys.modules
