"""Processes on the other cores of this machine, which serve one piece of work after another."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import Executor

_IDLE_S = 60  # after which those end that have nothing to do


def workers(most: int | None = None) -> tuple[Executor | None, int]:
    """Processes on (at most so many of) the other cores, and how many they are.

    All that asks for as many is given the same ones: to start one takes a second of its core. None where there is no
    other core (``LOKY_MAX_CPU_COUNT=1`` says so too), and in a process that may have no children, as those of
    ``multiprocessing.Pool``.
    """
    import joblib

    # joblib's own, for a user's script needs no `if __name__ == "__main__"` for them; but not `joblib.Parallel`, which
    # takes work in waves.
    from joblib.externals import loky

    if multiprocessing.current_process().daemon:
        return None, 0
    count = min(joblib.cpu_count() - 1, most or sys.maxsize)
    if count < 1:
        return None, 0
    return loky.get_reusable_executor(count, timeout=_IDLE_S, env={"OMP_NUM_THREADS": "1"}), count
