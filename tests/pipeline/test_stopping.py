"""Processes that are told to stop, or killed: what they leave, and that what they print goes on from there."""

import re
import shlex
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from commands_of_users import program, valuedrift
from mlflow import MlflowClient
from test_resume import DPO, SFT, assert_same, histories, runs, settings

from valuedrift_mlflow import tracking
from valuedrift_mlflow.pipeline.pipeline import run_pipeline, run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

# Runs an entry point with a hook in the step behind one: `HOOK STEP NAME ARGUMENTS`. A hook is a signal for the process
# itself, or a file, without which it does not go on: it makes `FILE.there` and waits.
HOOKED = """
import os, sys, time
from pathlib import Path
from transformers import Trainer
from valuedrift_mlflow.cli.main import entry_point

hook, step, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
original = Trainer.training_step

def hooked(self, *arguments, **named):
    if self.state.global_step == step:
        if hook.isdecimal():
            os.kill(os.getpid(), int(hook))
        else:
            Path(hook + ".there").touch()
            while not Path(hook).exists():
                time.sleep(0.1)
    return original(self, *arguments, **named)

Trainer.training_step = hooked
sys.argv = [f"entrypoints/{name}.py", *sys.argv[4:]]
entry_point(name)
"""
# The pipeline, which kills itself: `audit` within an audit, else right behind the creation of the run of a stage.
KILLED = """
import os, signal, sys
import mlflow
from valuedrift_mlflow.cli.main import entry_point
from valuedrift_mlflow.value_gap import audit

place = sys.argv[1]

def kill(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def killing(*arguments, tags=None, **named):
    run = original(*arguments, tags=tags, **named)
    if (tags or {}).get("valuedrift.stage_name") == place:
        kill()
    return run

if place == "audit":
    audit.examine = kill
original, mlflow.start_run = mlflow.start_run, killing
sys.argv = ["entrypoints/main.py", *sys.argv[2:]]
entry_point("main")
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that nothing else uses; a process has the time it needs to stop."""
    monkeypatch.setenv("VALUEDRIFT_GRACE", "3600")
    # Of a short path: sockets have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="vd", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def folders(temporary: Path) -> set[Path]:
    return {path for path in temporary.iterdir() if path.is_dir()}


def stopped_in(store: Path, number: int, code: int, stage: dict[str, Any], step: int) -> tuple[str, str]:
    """The id of a stage's run that was told to stop within a step, and the command that goes on."""
    name, file = str(stage["name"]), store / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings("embedded:base", stage)))
    done = program(HOOKED, str(number), str(step - 1), name, "--recipe", str(file))
    assert done.returncode == code, done.stderr
    [stopped] = runs()
    assert stopped.info.status == "KILLED"
    command = f"valuedrift {name} --recipe {file} --resume {stopped.info.run_id}"
    told = f"stopped by {signal.Signals(number).name}; go on with: {command}"
    assert done.stderr.splitlines()[-1] == f"valuedrift: {told}"
    assert stopped.data.tags["mlflow.note.content"] == f"**KILLED** {told}"
    assert "Traceback" not in done.stderr
    assert (store / ".valuedrift" / stopped.info.run_id / f"checkpoint-{step}" / "complete").is_file()
    return str(stopped.info.run_id), command


def assert_as_if_nothing_had_been(run_id: str, stage: dict[str, Any]) -> None:
    whole = run_single_stage(prepare(read.validate(settings("embedded:base", stage)), "tiny"), Display())
    model_id = tracking.logged_model(run_id, tracking.model_name(str(stage["name"]), 7))
    assert_same(SimpleNamespace(run_id=run_id, model_uri=f"models:/{model_id}"), whole)  # type: ignore[arg-type]


def test_a_stage_that_is_told_to_stop_goes_on_from_its_step(store: Path, base: str, temporary: Path) -> None:
    """Ctrl-C, in a step that no measurement and no checkpoint is due at."""
    run_id, command = stopped_in(store, signal.SIGINT, 130, DPO, 5)
    assert not folders(temporary)
    again = valuedrift(*shlex.split(command)[1:])
    assert again.returncode == 0, again.stderr
    assert_as_if_nothing_had_been(run_id, DPO)


def test_of_two_that_go_on_the_second_is_refused(store: Path, base: str, temporary: Path) -> None:
    """SIGTERM, in a step behind which a measurement is due: it is made when the first of the two goes on."""
    run_id, command = stopped_in(store, signal.SIGTERM, 143, SFT, 4)
    arguments, hook = shlex.split(command)[1:], store / "go on"
    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(program, HOOKED, str(hook), "4", *arguments)
        try:
            while not Path(f"{hook}.there").exists():
                assert not first.done(), first.result().stderr
                time.sleep(0.1)
            second = valuedrift(*arguments)
        finally:
            hook.touch()
    assert second.returncode == 2
    [line] = second.stderr.splitlines()
    owner = rf"'{run_id}, owned by process \d+ on {socket.gethostname()}, last heartbeat \d+ s ago'"
    assert re.match(f"valuedrift: --resume: found {owner}, allowed: a run that no process works on; end it", line)
    assert first.result().returncode == 0, first.result().stderr
    assert_as_if_nothing_had_been(run_id, SFT)
    assert "valuedrift.owner" not in MlflowClient().get_run(run_id).data.tags


def test_what_a_killed_pipeline_has_begun_is_not_begun_again(store: Path, base: str, temporary: Path) -> None:
    short = {"suite": "vaes?topics=abortion&per_topic=2", "samples": 1, "max_new_tokens": 8}
    tree = settings("embedded:base", SFT, steps=1) | short
    file = store / "tiny.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert program(KILLED, "audit", "--recipe", str(file)).returncode == -signal.SIGKILL
    begun = {run.data.tags["valuedrift.role"]: run.info for run in runs()}
    assert {role: run.status for role, run in begun.items()} == {"pipeline": "RUNNING", "audit": "RUNNING"}
    left = folders(temporary)
    assert left
    parent = begun["pipeline"].run_id
    done = program(KILLED, "sft", "--recipe", str(file), "--resume", parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not left & folders(temporary)
    run_pipeline(prepare(read.validate(tree), str(file)), Display(), parent)
    assert sorted(run.data.tags["valuedrift.role"] for run in runs()) == ["audit", "pipeline", "stage", "stage"]
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert begun["audit"].run_id in {run.info.run_id for run in runs()}
    assert histories(parent)["summary/sft/drift_overall"]
