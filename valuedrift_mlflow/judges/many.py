"""Many answers to verdicts, in processes of their own where the judge is the same in any."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pickle import PicklingError

from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.workers import workers
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import UNSCORED, Answer, Verdict

logger = logging.getLogger(__name__)
# Fewer are read before another process has started.
MANY = 500
# More would take memory beside a training (60 MB each), for a second or two.
_MOST = 4
_POLITE = 10  # a training beside them comes first


def verdicts(judge: Judge, answers: Sequence[Answer]) -> list[Verdict]:
    """One verdict per answer, in the same order.

    A judge that reads the same in any process (``portable``) reads many answers on other cores. A training beside
    them then keeps Python's interpreter to itself, which a judge that is all Python would hold. What is read does not
    depend on it: where a process is lost, this one reads.
    """
    if len(answers) < MANY or not getattr(judge, "portable", False):
        return judge.judge(answers)
    executor, count = workers(_MOST)
    if executor is None:
        return judge.judge(answers)
    joined = [UNSCORED] * len(answers)
    try:
        # Dealt out one by one, so that no part has all the long ones.
        parts = [executor.submit(_read, judge, answers[part::count]) for part in range(count)]
        for part, read in enumerate(parts):
            joined[part::count] = read.result()
    except BrokenProcessPool as error:  # killed, for memory or by hand
        logger.warning("a process that read answers was lost, they are read again: %s", one_line(error))
        return judge.judge(answers)
    except PicklingError as error:
        logger.warning("judge %s says that it is portable and is not, it reads here: %s", judge.name, one_line(error))
        return judge.judge(answers)
    return joined


def _read(judge: Judge, answers: Sequence[Answer]) -> list[Verdict]:
    """In another process, which goes on while the first one is interrupted: that one decides what is still done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # not on Windows
        os.setpriority(os.PRIO_PROCESS, 0, _POLITE)
    return list(judge.judge(answers))
