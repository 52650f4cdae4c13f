"""How a run ends: with the reason where it has failed, also where the store is away or the process has no time left."""

from __future__ import annotations

import math
import os
import time
import traceback
from contextlib import suppress

from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.errors import InputError, Unanswered, one_line
from valuedrift_mlflow.inputs.interrupts import Stopped, TakenOver
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.shown import safe, shortened
from valuedrift_mlflow.tracking.away import StayedAway, is_away, without_retries
from valuedrift_mlflow.tracking.delivery import Attempt, delivers, insist
from valuedrift_mlflow.tracking.write import NOTE, OpenRun, send

_LAST_S = 1.0  # seconds in which a process that was told to stop still delivers


def fail(run: OpenRun, error: BaseException, mend: str = "", *, noted: bool = True) -> None:
    """End a run by an error: FAILED, or KILLED where it is a stop; one that another process has taken is left as it is.

    Args:
        run: the run.
        error: why it ends; it is given ``mend`` where that helps.
        mend: how to go on.
        noted: whether the reason is left in the run's description.
    """
    interrupts.release()  # a training that has failed within a step has not said that it ended
    if isinstance(error, Stopped):
        interrupts.seen()
        error.mend = error.mend or mend
    if isinstance(error, TakenOver):
        _let_go(run.run_id)
        if run.spool is not None:
            run.spool.drop()
        return
    if isinstance(error, Unanswered) and mend:
        error.add_note(f"go on with --resume {run.run_id}")
    gone = run.spool is None and isinstance(error, StayedAway)  # nothing can be noted, and it was waited for
    if noted and not gone:
        _explain(run, error)
    if is_stop(error):
        end(run, "KILLED", wait_s=0, most_s=_LAST_S)
    else:
        with suppress(StayedAway):  # it must not hide the error
            end(run, "FAILED", wait_s=0 if gone else None)


def is_stop(error: BaseException) -> bool:
    """Whether an error says that the process is to end, and soon."""
    return isinstance(error, Stopped | KeyboardInterrupt)


def end(run: OpenRun, status: str, *, wait_s: float | None = None, most_s: float = math.inf) -> None:
    """End a run as MLflow's own block does; a store that is away learns of it later. For the times see `drained`."""
    import mlflow

    still = mlflow.active_run()
    if still is None or still.info.run_id != run.run_id:  # somebody has ended it
        return
    if run.spool is not None:
        run.spool.drained(wait_s, most_s)
    try:
        with without_retries():
            mlflow.end_run(status)  # whatever the store says, the run is no longer the active one
    except Exception as error:
        if not is_away(error):
            raise
        told = {"run_id": run.run_id, "status": status, "time": int(time.time() * 1000)}
        if run.spool is not None:
            run.spool.add("end", told, checked=False)
            run.spool.drained(wait_s, most_s)
        elif wait_s != 0:
            insist("end", None, told)


@delivers("end")
def _end_later(attempt: Attempt, *, run_id: str, status: str, time: int) -> None:
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, status, time)


def end_now(run_id: str) -> None:
    """Have a run KILLED from a thread, which has no active run; there is no time left for anything else."""
    from mlflow import MlflowClient

    with without_retries():
        MlflowClient().set_terminated(run_id, "KILLED")


def _let_go(run_id: str) -> None:
    """Make a run of another process's the active one no longer, and write nothing to it."""
    from mlflow.tracking import fluent

    # MLflow has no public way: each of them sets the run's status, also at the end of the process.
    stack = fluent._active_run_stack.get()
    stack[:] = [active for active in stack if active.info.run_id != run_id]


def _explain(run: OpenRun, error: BaseException) -> None:
    """Note on a run why it has failed."""
    try:
        send(run, "tags", checked=False, tags={NOTE: failure(error)})
    except Exception as other:  # the reason is that the store takes nothing: it must not hide the first one
        error.add_note(f"the reason is not noted on run {run.run_id}: {one_line(other)}")


def failure(error: BaseException) -> str:
    """The description of a failed run: the reason first, then where it happened."""
    reason = str(error) or type(error).__name__
    if isinstance(error, Stopped):
        return redacted(f"**KILLED** {reason}")
    if isinstance(error, InputError | Unanswered):
        return redacted(f"**FAILED** {reason}")
    # The end says where it happened; a tag of MLflow holds 8000 characters.
    where = "".join(traceback.format_exception(error))[-3000:]
    return redacted(safe(f"**FAILED** {type(error).__name__}: {shortened(reason)}\n\n```\n{where}\n```"))


def describe_refusal(error: InputError | Unanswered) -> None:
    """Give the run that ``mlflow run`` has opened the reason why its input was refused, or why it could not go on.

    A run that was refused says so in its name too.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient()
        with suppress(MlflowException), without_retries():  # the reason may be that the store takes nothing
            client.set_tag(run_id, NOTE, failure(error))
            if isinstance(error, InputError):
                entry_point = client.get_run(run_id).data.tags.get("mlflow.project.entryPoint", "")
                client.update_run(run_id, name=" · ".join(filter(None, ("refused", entry_point))))
