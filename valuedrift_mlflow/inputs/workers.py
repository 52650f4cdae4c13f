"""Processes on the other cores of this machine, which serve one piece of work after another."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import sys
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from threading import Lock

from valuedrift_mlflow.inputs.errors import one_line

logger = logging.getLogger(__name__)
_IDLE_S = 60  # after which those end that have nothing to do
_HERE = os.getpid()  # another one has been forked since
_STARTED: dict[int, Executor] = {}  # by how many they are
_ASKING = Lock()


def is_forked() -> bool:
    """Whether this process is a fork of the one that this was imported in, whose threads it does not have."""
    return os.getpid() != _HERE


def workers(most: int | None = None) -> tuple[Executor | None, int]:
    """Processes on (at most so many of) the other cores, and how many they are.

    All that asks for as many is given the same ones: to start one takes a second of its core. None where there is no
    other core (``LOKY_MAX_CPU_COUNT=1`` says so too), where none can be started, and in a child of `multiprocessing`
    or of a fork: it may have no children, or would wait for them at its end until they are idle for long enough, and
    those of its parent never answer it.
    """
    import joblib

    if multiprocessing.parent_process() is not None or is_forked():
        return None, 0
    try:
        count = min(joblib.cpu_count() - 1, most or sys.maxsize)
        return (_started(count), count) if count > 0 else (None, 0)
    except Exception as error:  # no file can be opened any more, no standard output, a number of cores that is none
        logger.warning("no processes for other cores, the work is done in this one: %s", one_line(error))
        return None, 0


def _started(count: int) -> Executor:
    # joblib's own, for a user's script needs no `if __name__ == "__main__"` for them; but not `joblib.Parallel`, which
    # takes work in waves, nor loky's reusable ones, which joblib takes for its own in what else the user does.
    from joblib.externals import loky

    with _ASKING:
        try:
            _STARTED[count].submit(os.getpid)
        except (KeyError, BrokenProcessPool):
            _STARTED[count] = loky.ProcessPoolExecutor(
                count, timeout=_IDLE_S, env={"OMP_NUM_THREADS": "1"}, initializer=_may_grow
            )
            _STARTED[count].submit(os.getpid)  # the first work starts them: what keeps them from it shows here
        return _STARTED[count]


def _may_grow() -> None:
    """In a new process. Loky takes 300 MB more than after the first work for a leak, and starts another in its place.

    What is loaded and remembered here is bounded, and would have to be loaded again.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf
