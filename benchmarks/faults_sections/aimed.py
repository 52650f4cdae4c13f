"""An entry point in which something happens at one moment: ``AIM NAME ARGUMENTS``, where ``AIM`` is JSON.

Moments are calls of what every job passes through: writes to MLflow's store, copies of artifacts, training steps, files
that take their place. ``{"record": FILE}`` writes down which of them come in which order, ``{"used": FILE}`` at each
training step the process's memory, threads and open files, and ``{}`` does nothing. Else ``event`` and ``nth`` name
one, ``when`` is "before" or "behind" it, and ``does`` is

- a number: that signal, sent to the process itself;
- "full": ``OSError`` as a full disk raises it (only before);
- a path: ``PATH.there`` is made, and the process waits until there is a ``PATH``.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_STORE = "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore."
_REGISTRY = "mlflow.store.model_registry.sqlalchemy_store:SqlAlchemyStore."
_ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository."
EVENTS = {
    "a run is created": _STORE + "create_run",
    "a run's status is set": _STORE + "update_run_info",
    "metrics and parameters are written": _STORE + "log_batch",
    "a tag is written": _STORE + "set_tag",
    "data is written": _STORE + "log_inputs",
    "a model is linked": _STORE + "log_outputs",
    "a LoggedModel is created": _STORE + "create_logged_model",
    "a LoggedModel is finished": _STORE + "finalize_logged_model",
    "a file is stored": _ARTIFACTS + "log_artifact",
    "a folder is stored": _ARTIFACTS + "log_artifacts",
    "a model gets its name": _REGISTRY + "create_registered_model",
    "a version is created": _REGISTRY + "create_model_version",
    "a version gets its alias": _REGISTRY + "set_registered_model_alias",
    "a training step": "transformers:Trainer.training_step",
    "a state is saved": "transformers:Trainer._save_checkpoint",
    "a file takes its place": "os:replace",
    "a model speaks": "valuedrift_mlflow.models.decoding:Decoder.run",
    "a corpus is audited": "valuedrift_mlflow.value_gap.audit:examine",
}
_lock = threading.Lock()
_counts: Counter[str] = Counter()


def main() -> None:
    """Take the aim, then be the entry point."""
    aim = json.loads(sys.argv[1])
    name = sys.argv[2]
    if "record" in aim:
        for event in EVENTS:
            _wrap(event, functools.partial(_record, Path(aim["record"])))
    elif "used" in aim:
        _wrap("a training step", functools.partial(_used, Path(aim["used"])))
    elif aim:
        _wrap(aim["event"], functools.partial(_do, aim))
    sys.argv = [f"entrypoints/{name}.py", *sys.argv[3:]]
    from valuedrift_mlflow.cli.main import entry_point

    entry_point(name)


def _wrap(event: str, moment: Callable[[str, int, str], None]) -> None:
    module, _, path = EVENTS[event].partition(":")
    owner: Any = importlib.import_module(module)
    *kinds, name = path.split(".")
    for kind in kinds:
        owner = getattr(owner, kind)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        with _lock:
            _counts[event] += 1
            nth = _counts[event]
        moment(event, nth, "before")
        found = original(*arguments, **named)
        moment(event, nth, "behind")
        return found

    setattr(owner, name, wrapped)


def _record(file: Path, event: str, nth: int, when: str) -> None:
    if when == "before":
        with file.open("a") as handle:
            handle.write(event + "\n")


def _used(file: Path, event: str, nth: int, when: str) -> None:
    if when == "before":
        own = psutil.Process()
        with file.open("a") as handle:
            handle.write(f"{own.memory_info().rss} {own.num_threads()} {own.num_fds()}\n")


def _do(aim: dict[str, Any], event: str, nth: int, when: str) -> None:
    if (nth, when) != (aim["nth"], aim["when"]):
        return
    does = aim["does"]
    if does == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if isinstance(does, int):
        os.kill(os.getpid(), does)
    else:
        Path(does + ".there").touch()
        while not Path(does).exists():
            time.sleep(0.05)
