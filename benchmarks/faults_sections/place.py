"""A folder in which jobs run and are hurt, and what they came to, to compare."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml
from commands_of_users import program
from mlflow import MlflowClient
from mlflow.entities import Run

_HERE = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
_AIMED = _HERE + "from faults_sections.aimed import main; main()"
_READ = _HERE + "from faults_sections.place import read; read()"
Told = dict[str, object]


@dataclass(frozen=True)
class Outcome:
    """One fault that was tried, and what became of it; ``why`` is empty where all is as without it."""

    kind: str
    fault: str
    why: str = ""


def _stage(name: str, algorithm: str, start: str, data: str) -> dict[str, object]:
    common = {"max_steps": 4, "checkpoint_every": 2, "batch_size": 4, "learning_rate": 1e-3}
    return {"name": name, "algorithm": algorithm, "from": start, "data": data} | common


SFT = _stage("sft", "sft", "base", "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=40")
DPO = _stage("dpo", "dpo", "sft", "embedded:pairs?gap=1&size=40") | {"lora": {"rank": 4}}
PIPELINE: dict[str, object] = {
    "suite": "vaes?topics=religion,abortion&per_topic=2",
    "samples": 2,
    "checkpoint_samples": 1,
    "max_new_tokens": 16,
    "register": "assistant",
    "stages": [SFT, DPO],
}
# What no fault aims at: times, sizes, and who wrote when.
_PASSING = ("cost/", "system/")
_TIMED = ("runtime", "per_second", "step_time")


class Place:
    """A working folder with its own store, caches and temporary files, which can be brought back to what it was."""

    def __init__(self, folder: Path) -> None:
        """Make it; short paths, as sockets have about a hundred characters."""
        self.folder = folder / "work"
        self.caches, self._kept = folder / "cache", folder / "kept"
        self.temporary = folder / "tmp"
        self.address = f"sqlite:///{self.folder}/mlflow.db"
        for made in (self.folder, self.caches, self.temporary):
            made.mkdir(parents=True)

    def recipe(self, tree: Mapping[str, object]) -> str:
        """The path of a file with a recipe."""
        file = self.folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(dict(tree)))
        return str(file)

    def run(
        self, name: str, *arguments: str, aim: Mapping[str, object] | None = None, **environment: str
    ) -> CompletedProcess[str]:
        """A command in this folder, with something that happens to it where ``aim`` says so."""
        given = {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_EXPERIMENT_NAME": "faults",
            "XDG_CACHE_HOME": str(self.caches),
            "TMPDIR": str(self.temporary),
            **environment,
        }
        return program(_AIMED, json.dumps(aim or {}), name, *arguments, folder=self.folder, environment=given)

    def keep(self) -> None:
        """Remember the folder and its caches as they are."""
        shutil.rmtree(self._kept, ignore_errors=True)
        for name, folder in self._parts():
            shutil.copytree(folder, self._kept / name, symlinks=True)

    def bring_back(self) -> None:
        """Put everything as it was when it was kept, at the same paths; nothing where nothing was."""
        for name, folder in self._parts():
            shutil.rmtree(folder)
            kept = self._kept / name
            if kept.exists():
                shutil.copytree(kept, folder, symlinks=True)
            else:
                folder.mkdir()

    def forget(self) -> None:
        """Bring the folder back to nothing."""
        shutil.rmtree(self._kept, ignore_errors=True)
        self.bring_back()

    def _parts(self) -> list[tuple[str, Path]]:
        return [("work", self.folder), ("cache", self.caches), ("tmp", self.temporary)]

    def told(self) -> Told:
        """What the store holds, in a form that is equal for equal jobs: each run with its numbers, answers, weights."""
        return self._read()["told"]

    def resumable(self) -> str | None:
        """The id of the run that goes on, the one that is nobody's child."""
        return self._read()["first"]

    def running(self) -> list[str]:
        """The names of runs that are not at their end."""
        return self._read()["running"]

    def _read(self) -> Any:
        # In a process of its own: a client keeps a database open that is not there any more.
        file = self.temporary / "read.json"
        done = program(_READ, self.address, str(file))
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(file.read_text())

    def left(self) -> list[str]:
        """What lies about that a finished job removes."""
        state = self.folder / ".valuedrift"
        own = [path.name for path in self.temporary.glob("valuedrift-*") if path.is_dir()]
        return ([".valuedrift"] if state.exists() else []) + own


def read() -> None:
    """Write down what a store holds: ``ADDRESS FILE``."""
    address, file = sys.argv[1:]
    client = MlflowClient(address, address)
    experiment = client.get_experiment_by_name("faults")
    runs = list(client.search_runs([experiment.experiment_id])) if experiment else []
    told: Told = {}
    for run in runs:
        name = _name(run)
        told[name if name not in told else f"{name} (again)"] = _of_run(client, run)
    told["registry"] = [
        (model.name, sorted(model.aliases.items()), _versions(client, model.name))
        for model in client.search_registered_models()
    ]
    first = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    running = [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    Path(file).write_text(json.dumps({"told": told, "first": first[0] if first else None, "running": running}))


def _versions(client: MlflowClient, name: str) -> list[tuple[str, str]]:
    found = client.search_model_versions(f"name = '{name}'")
    return [(str(version.version), str(version.status)) for version in found]


def _name(run: Run) -> str:
    named = ("valuedrift.role", "valuedrift.stage_name", "mlflow.runName")
    return " ".join(filter(None, map(run.data.tags.get, named)))


def _of_run(client: MlflowClient, run: Run) -> Told:
    models = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'")
    folder = _on_disk(client, run.info.artifact_uri)
    numbers = {
        key: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
        for key in sorted(run.data.metrics)
        if not key.startswith(_PASSING) and not key.endswith(_TIMED)
    }
    return {
        "status": run.info.status,
        "metrics": numbers,
        "parameters": dict(sorted(run.data.params.items())),
        "models": sorted((model.name, str(model.status)) for model in models),
        "files": {str(path.relative_to(folder)): _content(path) for path in _files(folder)},
        "weights": sorted(
            _content(path)
            for model in models
            for path in _files(_on_disk(client, model.artifact_location))
            if path.suffix == ".safetensors"
        ),
    }


def _on_disk(client: MlflowClient, uri: str) -> Path:
    """Where artifacts are; those that a server passes on lie in the server's folder."""
    working = Path(client.tracking_uri.removeprefix("sqlite:///")).parent
    return Path(uri.removeprefix("file://").replace("mlflow-artifacts:", str(working / "mlartifacts")))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _content(path: Path) -> str:
    """A hash of what must be equal, else that the file is there: pages and figures hold ids and times."""
    exact = path.suffix == ".safetensors" or path.name == "responses.json"
    if not exact:
        return "there"
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def differences(found: Told, expected: Told) -> str:
    """Where two jobs differ, in a few words; empty where they do not."""
    if extra := sorted(set(found) ^ set(expected)):
        return f"runs: {', '.join(extra)}"
    for name, whole in expected.items():
        other = found[name]
        if other == whole:
            continue
        if not isinstance(whole, dict) or not isinstance(other, dict):
            return f"{name}: {other}, not {whole}"
        part = next(key for key in whole if whole[key] != other[key])
        return f"{name}: {part}: {_first(other[part], whole[part])}"
    return ""


def _first(found: object, expected: object) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        key = next(key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key))
        return f"{key}: {found.get(key)}, not {expected.get(key)}"[:300]
    return f"{found}, not {expected}"[:300]
