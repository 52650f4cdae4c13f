"""Commands as a user types them, each in a process of its own.

The processes are forked from one that has imported the libraries, which takes longer than most commands. What a
command imports by itself, and when, is for the tests that start a bare interpreter.
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).parents[1]
_LIBRARIES = ["datasets", "mlflow", "pandas", "peft", "seaborn", "sklearn", "torch", "transformers", "trl"]
# What most commands come to use of them: a store, a model, the offline judge, a trainer.
_PARTS = ["mlflow.pyfunc", "mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.pyplot"]
_PARTS += ["sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.metrics", "transformers.models.llama"]
_PARTS += ["transformers.trainer", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer"]


def entry_point(name: str, *arguments: str) -> CompletedProcess[str]:
    """A script of ``entrypoints`` as MLproject calls it, in the working folder."""
    return _run(f"entrypoints.{name}", arguments)


def valuedrift(*arguments: str, path: str = "") -> CompletedProcess[str]:
    """The command of an installed package in the working folder, with the packages in ``path`` beside it."""
    return _run("valuedrift_mlflow.cli.main", arguments, path)


def mlflow_run(*arguments: str) -> CompletedProcess[str]:
    """``mlflow run`` of this project in the working folder; the job itself is a process of MLflow's making."""
    return _run("mlflow", ("run", str(ROOT), "--env-manager", "local", *arguments))


def program(
    code: str, *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Python code of a user (``python -c``) in a folder, the working one if none is named. It may kill its process."""
    return _run("-c", arguments, code=code, folder=folder, environment=environment)


def _run(
    module: str,
    arguments: tuple[str, ...],
    path: str = "",
    code: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as place:
        shown, errors = Path(place, "stdout"), Path(place, "stderr")
        folder = folder or Path.cwd()
        paths = [str(folder), *filter(None, [path]), str(ROOT)]
        given = (module, arguments, code, folder, {**os.environ, **(environment or {})}, paths, shown, errors)
        process = _server().Process(target=_child, args=given)
        process.start()
        process.join()
        ended = process.exitcode
        assert ended is not None
        return CompletedProcess([module, *arguments], ended, shown.read_text(), errors.read_text())


@cache
def _server() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload([*_LIBRARIES, *_PARTS])
    return context


def _child(
    module: str,
    arguments: tuple[str, ...],
    code: str,
    folder: Path,
    environment: Mapping[str, str],
    paths: list[str],
    shown: Path,
    errors: Path,
) -> None:
    """Run the module as ``python -m`` does, or the code as ``python -c``; what it writes goes to files."""
    for stream, file in ((sys.stdout, shown), (sys.stderr, errors)):
        stream.flush()
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it is read from the environment once
    os.chdir(folder)
    sys.path[:0] = paths
    sys.argv = [module, *arguments]
    try:
        if code:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        _at_exit()


def _at_exit() -> None:
    """What an interpreter does at its end and a forked process does not."""
    run: Callable[[], None] = getattr(atexit, "_run_exitfuncs")  # noqa: B009  # mypy does not know it
    run()
    sys.stdout.flush()
    sys.stderr.flush()
