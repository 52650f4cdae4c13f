"""Processes that are told to stop, or killed: what they leave, and that what they print goes on as if nothing had been."""

import shlex
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from commands_of_users import program, valuedrift
from test_resume import DPO, SFT, assert_same, runs, settings

from valuedrift_mlflow import tracking
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

# Runs an entry point that gets a signal in the middle of the step behind one: `SIGNAL STEP NAME ARGUMENTS`.
TOLD = """
import os, signal, sys
from pathlib import Path
from transformers import Trainer
from valuedrift_mlflow.cli.main import entry_point

number, step, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
original = Trainer.training_step

def told(self, *arguments, **named):
    if self.state.global_step == step:
        os.kill(os.getpid(), number)
    return original(self, *arguments, **named)

Trainer.training_step = told
sys.argv = [f"entrypoints/{name}.py", *sys.argv[4:]]
entry_point(name)
"""


def file_of(tree: dict[str, Any], store: Path) -> str:
    (store / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return str(store / "tiny.yaml")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that nothing else uses."""
    # Of a short path: sockets have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="vd", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize(
    ("number", "code", "stage", "saved"),
    [(signal.SIGTERM, 143, SFT, 4), (signal.SIGINT, 130, DPO, 5)],
    ids=["SIGTERM, before a measurement", "SIGINT, between two"],
)
def test_a_process_that_is_told_to_stop_saves_its_step(
    store: Path,
    base: str,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    stage: dict[str, Any],
    saved: int,
) -> None:
    monkeypatch.setenv("VALUEDRIFT_GRACE", "3600")  # no test is timed
    tree = settings(base, stage)
    done = program(TOLD, str(number), str(saved - 1), str(stage["name"]), "--recipe", file_of(tree, store))
    assert done.returncode == code, done.stderr
    [stopped] = runs()
    assert stopped.info.status == "KILLED"
    command = f"valuedrift {stage['name']} --recipe {store}/tiny.yaml --resume {stopped.info.run_id}"
    assert done.stderr.splitlines()[-1] == (
        f"valuedrift: stopped by {signal.Signals(number).name}; go on with: {command}"
    )
    assert "Traceback" not in done.stderr
    assert (store / ".valuedrift" / stopped.info.run_id / f"checkpoint-{saved}" / "complete").is_file()
    assert not list(temporary.iterdir())
    again = valuedrift(*shlex.split(command)[1:])
    assert again.returncode == 0, again.stderr
    whole = run_single_stage(prepare(read.validate(tree), "tiny"), Display())
    uri = f"models:/{tracking.logged_model(stopped.info.run_id, tracking.model_name(str(stage['name']), 7))}"
    assert_same(SimpleNamespace(run_id=stopped.info.run_id, model_uri=uri), whole)  # type: ignore[arg-type]
