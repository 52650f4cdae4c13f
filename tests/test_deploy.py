"""What ``deploy/`` holds for containers, Kubernetes and Slurm, as far as it can be tried without any of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

from valuedrift_mlflow.cli.commands import ENTRY_POINTS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def command_of(name: str, **parameters: str) -> list[str]:
    """What MLflow starts for an entry point of the project in ``deploy/``."""
    from mlflow.projects._project_spec import load_project

    project = load_project(str(DEPLOY))
    assert project.docker_env["image"] == "registry.example/valuedrift" and project.name
    return [project.get_entry_point(name).compute_command(parameters, None)]


def kubernetes_job(command: list[str]) -> dict[str, Any]:
    """The Job that MLflow makes of the template."""
    pytest.importorskip("kubernetes", reason="needs the Python client of Kubernetes, as MLflow's backend does")
    from mlflow.projects import _parse_kubernetes_config
    from mlflow.projects.kubernetes import _get_kubernetes_job_definition, _get_run_command

    with chdir(ROOT):
        config = _parse_kubernetes_config(json.loads((DEPLOY / "kubernetes_config.json").read_text()))
    job: dict[str, Any] = _get_kubernetes_job_definition(
        *("valuedrift", config["repository-uri"], "sha256:0", _get_run_command(command)),
        {"MLFLOW_RUN_ID": "1"},
        config["kube-job-template"],
    )
    return job


def test_every_entry_point_is_a_command_in_the_container() -> None:
    for own in ENTRY_POINTS:
        [command] = command_of(own.name)
        assert command.startswith(f"python -m valuedrift_mlflow.cli.container {own.name} --recipe {own.recipe} ")


def test_the_job_of_kubernetes_runs_as_nobody_special_and_is_filled_in_whole() -> None:
    job = kubernetes_job(command_of("evaluate"))
    assert job["metadata"]["name"].startswith("valuedrift-") and job["spec"]["backoffLimit"] == 0
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["image"] == "registry.example/valuedrift@sha256:0"
    assert {one["name"] for one in container["env"]} == {"VALUEDRIFT_STATE", "OPENAI_API_KEY", "MLFLOW_RUN_ID"}
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert "filled in" not in yaml.safe_dump(job)


def test_the_command_of_the_job_can_be_run(tmp_path: Path) -> None:
    """Kubernetes starts it without a shell: the quotes that MLflow writes for one must not reach the recipe."""
    command = command_of("evaluate", set="samples=2 suite=vaes?topics=abortion&per_topic=2", dry_run="true")
    program, *arguments = kubernetes_job(command)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert program == "python"
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Dry run of evaluate" in done.stdout and "2 prompts" in done.stdout


def test_the_image_is_made_of_files_that_are_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    instructions = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [path for name, *paths in instructions if name == "COPY" for path in paths[:-1]]
    sent = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    assert sorted(copied) == sorted(sent)  # what is not sent to the builder cannot be copied
    assert all((ROOT / path).exists() for path in copied)
    project = (ROOT / "pyproject.toml").read_text()
    assert all(name in copied for name in ("README.md", "LICENSE", "entrypoints") if name in project)
    users = [words[1] for words in instructions if words[0] == "USER"]
    assert users == ["1000"] and any(words[0] == "RUN" and "--uid 1000" in " ".join(words) for words in instructions)
    assert any("-c constraints.txt" in " ".join(words) for words in instructions)


def test_the_script_for_slurm_starts_torchrun_on_every_machine(tmp_path: Path) -> None:
    """By stand-ins of Slurm's programs: ``srun`` prints what it is given."""
    for name, said in (("srun", 'echo "$@"'), ("scontrol", "printf 'a1\\na2\\n'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    told = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}
    told |= {"SLURM_CPUS_PER_TASK": "32", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = str(DEPLOY / "slurm.sh")

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=told | more)

    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "MLFLOW_TRACKING_URI" in run("train.py").stderr
    assert "training script" in run(MLFLOW_TRACKING_URI="http://127.0.0.1:1").stderr
    done = run("train.py", "--size", "2", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.stdout.split()[-8:] == [
        *("--nnodes=2", "--nproc-per-node=4", "--rdzv-id=7", "--rdzv-backend=c10d", "--rdzv-endpoint=a1:29500"),
        *("train.py", "--size", "2"),
    ]
    done = run("main", "--recipe", "dpo", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.stdout.split()[-8:] == [
        *("valuedrift", "main", "--recipe", "dpo", "--nodes", "2", "--rendezvous", "a1:29500"),
    ]
