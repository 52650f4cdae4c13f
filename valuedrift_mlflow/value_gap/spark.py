"""An audit's batches on a Spark cluster: its executors do with each what processes do on the cores of one machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_args

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Engine = Literal["local", "spark"]
_JOBS = 256  # at the same time, at most: a thread waits for each
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


def engine_of(name: str) -> Engine:
    """The engine of this name, where it can be had.

    Raises:
        InputError: there is none of this name; spark without pyspark, or without Java to start it with.
    """
    if name not in get_args(Engine):
        raise InputError(problem("engine", name, ", ".join(get_args(Engine))))
    if name == "spark":
        if find_spec("pyspark") is None:
            mend = "pip install 'valuedrift-mlflow[spark]'"
            raise InputError(problem("engine", "spark without pyspark", "pyspark beside this package", mend))
        if not _java():
            mend = "install a JRE, such as openjdk-17-jre-headless, or set JAVA_HOME"
            raise InputError(problem("engine", "spark without Java", "Java 17 or newer", mend))
    return cast(Engine, name)


def _java() -> bool:
    """Whether Spark finds a Java; it looks where JAVA_HOME says, and nowhere else where that is set."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java")) if home else "java") is not None


class Cluster:
    """The executors of a Spark session; the driver reads nothing beside them."""

    own = 0

    def __init__(self, session: SparkSession, waiting: Executor) -> None:
        """Of a session that has been started; threads of ``waiting`` wait for what executors have."""
        self._context = session.sparkContext
        self._waiting = waiting
        self.workers: int = self._context.defaultParallelism

    def begin(self, work: Callable[[_Given], _Found], given: _Given) -> Future[_Found]:
        """Begin with one, a job of one task, while the caller goes on."""
        # A function travels by its name: the package has to be there on every executor.
        task = self._context.parallelize([given], 1).map(work)
        return self._waiting.submit(task.first)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The session of this process, or one that is started for this and stopped after it.

    Raises:
        InputError: none can be started, or it is one of Spark Connect.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is None:
        # In local mode Spark would take the first python3 that it finds, which need not be this one.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with ThreadPoolExecutor(_JOBS) as waiting:
        try:
            session = active or SparkSession.builder.appName("valuedrift").getOrCreate()
            made = Cluster(session, waiting)
        except Exception as error:  # of Java, of the cluster, of a session that has no context
            allowed = "a Spark session with its context, and no Spark Connect"
            raise InputError(problem("engine spark", f"{type(error).__name__}: {one_line(error)}", allowed)) from error
        try:
            yield made
        finally:
            if active is None:
                session.stop()
