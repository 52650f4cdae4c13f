"""A stage on several machines: here as several commands that meet on one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

ROOT = Path(__file__).parents[2]
SFT = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=80"}


def recipe(batch: int, **stage: Any) -> dict[str, Any]:
    common = {"max_steps": 2, "checkpoint_every": 1, "warmup_ratio": 0.0, "max_length": 128, "learning_rate": 5e-4}
    return {
        "suite": "vaes?topics=religion,abortion&per_topic=2",
        "samples": 1,
        "max_new_tokens": 8,
        "audit": False,
        "stages": [common | SFT | {"batch_size": batch} | stage],
    }


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(file: Path, name: str, port: int, *arguments: str) -> subprocess.Popen[str]:
    """A command as it is started on each machine."""
    meeting = ("--nodes", "2", "--rendezvous", f"127.0.0.1:{port}")
    command = [sys.executable, "-m", "valuedrift_mlflow.cli.main", name, "--recipe", str(file), *meeting, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=Path.cwd()
    )


@pytest.mark.slow
def test_two_machines_come_to_what_one_comes_to_and_one_of_them_writes(store: Path, base: str) -> None:
    (store / "tiny.yaml").write_text(yaml.safe_dump(recipe(batch=4)))
    port = free_port()
    both = [started(store / "tiny.yaml", "main", port) for _ in range(2)]
    said = [one.communicate(timeout=540)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    [second] = [text for text in said if "machine 2 of 2: waiting for the first" in text]
    assert "sft: 1 processes of 2" in second
    assert "Net drift" not in second
    found = mlflow.search_runs(output_format="list")
    stages = {run.data.tags["valuedrift.stage_name"]: run for run in found if "valuedrift.stage_name" in run.data.tags}
    assert len(found) == 3 and set(stages) == {"base", "sft"}
    run = stages["sft"].info
    assert run.status == "FINISHED"
    assert stages["sft"].data.params["launch.nodes"] == "2"
    assert not any("rendezvous" in name for name in stages["sft"].data.params)
    for key, steps in (("quality/unscored_rate", [0, 1, 2]), ("train/loss", [1, 2])):
        assert [one.step for one in MlflowClient().get_metric_history(run.run_id, key)] == steps
    plan = prepare(read.validate(recipe(batch=8)), "tiny")
    one = run_single_stage(plan, Display())
    assert isinstance(one, StageResult)
    ours = models.load_model(f"runs:/{run.run_id}/checkpoints/step-000002").model
    theirs, start = models.load_model(one.model_uri).model, models.load_model(base).model
    moved = [float((a - b).abs().max()) for a, b in zip(theirs.parameters(), start.parameters(), strict=True)]
    apart = [float((a - b).abs().max()) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert max(apart) < 0.05 * max(moved)


@pytest.mark.slow
def test_what_fails_on_one_ends_both_in_a_line(store: Path, base: str) -> None:
    """A loss that is not finite is every process's own; another recipe is told before anything is computed."""
    (store / "wild.yaml").write_text(yaml.safe_dump(recipe(batch=4, learning_rate=1e30)))
    port = free_port()
    both = [started(store / "wild.yaml", "sft", port) for _ in range(2)]
    said = [one.communicate(timeout=540)[0] for one in both]
    assert all(one.returncode for one in both)
    assert all("the loss is" in text for text in said), said
    (store / "other.yaml").write_text(yaml.safe_dump(recipe(batch=2)))
    both = [started(store / f"{name}.yaml", "sft", port) for name in ("wild", "other")]
    said = [one.communicate(timeout=540)[0] for one in both]
    assert [one.returncode for one in both] == [2, 2]
    for text in said:
        assert "with another recipe (stages)" in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        ({"nodes": 2}, r"launch\.rendezvous: found 'nothing', allowed: HOST:PORT, an address of the first machine"),
        ({"nodes": 2, "rendezvous": "node1"}, r"launch\.rendezvous: found 'node1', allowed: HOST:PORT"),
        ({"nodes": 0}, r"sft\.launch\.nodes: found 0, allowed: input should be greater than or equal to 1"),
    ],
)
def test_machines_that_cannot_meet_are_refused(launch: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        prepare(read.validate(recipe(batch=4, launch=launch)), "tiny")


def test_a_script_alone_is_told_what_to_start(store: Path, base: str) -> None:
    launch = {"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"}
    plan = prepare(read.validate(recipe(batch=4, launch=launch)), "tiny")
    with pytest.raises(InputError, match=r"sft\.launch\.nodes: found .*start .valuedrift main. or the stage's command"):
        run_single_stage(plan, Display())
