"""Many answers to verdicts, in processes of their own where the judge is the same in any."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import Answer, Verdict

logger = logging.getLogger(__name__)
# Fewer are read before another process has started.
MANY = 500
# More would take memory beside a training (60 MB each), for a second or two.
_MOST = 4
_POLITE = 10  # a training beside them comes first


def verdicts(judge: Judge, answers: Sequence[Answer]) -> list[Verdict]:
    """One verdict per answer, in the same order.

    A judge that reads the same in any process (``portable``) reads many answers on several cores. A training beside
    them then keeps Python's interpreter to itself, which a judge that is all Python would hold. What is read does not
    depend on it: where a process is lost, this one reads.
    """
    if len(answers) < MANY or not getattr(judge, "portable", False):
        return judge.judge(answers)
    import joblib

    workers = min(joblib.cpu_count(), _MOST)
    if workers < 2:
        return judge.judge(answers)
    read = joblib.delayed(_read)
    try:
        # Dealt out one by one, so that long answers to neighbouring prompts do not wait for each other.
        parts = joblib.Parallel(n_jobs=workers, batch_size=1)(
            read(judge, answers[worker::workers]) for worker in range(workers)
        )
    except BrokenProcessPool as error:  # killed, for memory or by hand
        logger.warning("a process that read answers was lost, they are read again: %s", one_line(error))
        return judge.judge(answers)
    joined: list[Verdict | None] = [None] * len(answers)
    for worker, part in enumerate(parts):
        joined[worker::workers] = part
    return [verdict for verdict in joined if verdict is not None]


def _read(judge: Judge, answers: Sequence[Answer]) -> list[Verdict]:
    """In another process, which goes on while the first one is interrupted: that one decides what is still done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # not on Windows
        os.setpriority(os.PRIO_PROCESS, 0, _POLITE)
    return judge.judge(answers)
