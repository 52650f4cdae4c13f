"""Runs: how they are opened, nested, adopted and continued, and how a failure is described."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.errors import InputError, Unanswered
from valuedrift_mlflow.inputs.interrupts import Stopped, TakenOver
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.shown import safe, shortened
from valuedrift_mlflow.tracking.earlier import end_orphans
from valuedrift_mlflow.tracking.lease import Lease, check_owner, is_owned, own, stale_after
from valuedrift_mlflow.tracking.store import (
    address,
    command,
    command_of_ours,
    keep_password_apart,
    mark_as_training,
    opened_once,
)
from valuedrift_mlflow.tracking.view import save_view
from valuedrift_mlflow.tracking.write import NOTE, OpenRun, log_parameters, log_tags

if TYPE_CHECKING:
    from mlflow import ActiveRun

Role = (
    Literal["pipeline", "ablation", "stage", "training", "evaluation", "comparison"]
    | Literal["judge_check", "judge_training", "judge_model", "audit", "synthesis", "attribution"]
)

_RANDOM = re.compile(r"[a-z]+-[a-z]+-\d+")  # the form of the names that MLflow gives, such as fortunate-colt-982
_PARENTS: tuple[Role, ...] = ("pipeline", "ablation")
_RESUMABLE: tuple[Role, ...] = (*_PARENTS, "stage")


def work_offline() -> None:
    """Keep MLflow and the hub libraries from calling home. What the user has set stays."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")  # or MLflow fetches a list of models
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or tokenizers warn whenever a process is forked


def package_version() -> str:
    """The installed version of this package."""
    return version("valuedrift-mlflow")


def commit_of(run_id: str) -> str:
    """The commit of the code that made a run, as MLflow has noted it; empty where it has not."""
    from mlflow import MlflowClient

    return str(MlflowClient().get_run(run_id).data.tags.get("mlflow.source.git.commit", ""))


def parent_of(run_id: str) -> str:
    """The id of the run that a run is nested in; empty where it is in none."""
    from mlflow import MlflowClient

    return str(MlflowClient().get_run(run_id).data.tags.get("mlflow.parentRunId", ""))


def is_nested() -> bool:
    """Whether a run that is opened now has a parent."""
    import mlflow

    return mlflow.active_run() is not None


@contextmanager
def run(
    role: Role,
    *,
    name: str | None = None,
    stage: str | None = None,
    recipe: str | None = None,
    parameters: Mapping[str, str] | None = None,
    run_id: str | None = None,
    color: str | None = None,
    named: Mapping[str, str] | None = None,
) -> Iterator[OpenRun]:
    """Open a run, nested where one is active, or adopt the run of ``mlflow run``; an error leaves it FAILED.

    A run that is already active stays open, and it is FAILED too when the error passes through the block that opened
    it; a process that is told to stop leaves them KILLED. With ``run_id`` a run that was stopped is continued: what it
    has logged stays and is not logged twice. A run that can be continued is owned by this process in the block, see
    ``lease``. ``color`` is that of the run in MLflow's charts; ``named`` are further tags that it has from the first.
    """
    import mlflow

    nested = is_nested()
    if not nested:
        keep_password_apart()
        opened_once(address())
    check_owner()
    stale_after()  # a setting that cannot be is refused before there is a run
    continued = _continue(run_id) if run_id else None
    adopted = not run_id and not nested and "MLFLOW_RUN_ID" in os.environ  # start_run takes it out
    resumable = role in _PARENTS or (role == "stage" and not nested)
    tags = {"role": role, "version": package_version(), "stage": stage, "recipe": recipe, **(named or {})}
    with ExitStack() as opening:  # left last: a run is given back when it has ended
        active = _start(run_id, None if adopted or run_id else name, tags)
        opened = continued or OpenRun(active.info.run_id)
        mend = how_to_go_on(opened.run_id) if resumable else ""
        owning = Lease(opened.run_id) if resumable and not is_owned(opened.run_id) else None
        if owning:
            opening.callback(owning.give_back)
        with active, interrupts.ending(lambda: _end(opened.run_id, "KILLED"), mend), _described(opened, mend):
            if owning:
                owning.take(new=not run_id)
            # start_run takes no name for a run that is there already.
            given = {"mlflow.runName": redacted(name) if adopted and name else None, "mlflow.runColor": color}
            mlflow.set_tags({key: value for key, value in given.items() if value})
            if not nested:
                mark_as_training(active.info.experiment_id)
            if not nested or role == "audit":  # stages have the view of their pipeline
                save_view(mlflow.MlflowClient().get_run(opened.run_id))
            log_parameters(opened.run_id, parameters or {})
            yield opened


def _start(run_id: str | None, name: str | None, tags: Mapping[str, str | None]) -> ActiveRun:
    """A run with its name and this package's tags, nested where one is active."""
    import mlflow

    nested = is_nested()
    return mlflow.start_run(
        run_id=run_id,
        run_name=redacted(name) if name else None,
        # Of the run around it: MLflow would take the one that variables of the environment name.
        experiment_id=_parents_experiment() if nested and not run_id else None,
        nested=nested,
        tags={f"valuedrift.{key}": redacted(value) for key, value in tags.items() if value},
    )


@contextmanager
def _described(run: OpenRun, mend: str) -> Iterator[None]:
    """Leave the reason of an error in the run's description, and ``mend`` with the error; KILLED where it is a stop."""
    import mlflow

    try:
        yield
    except BaseException as error:  # an interrupt is a reason too
        interrupts.release()  # a training that has failed within a step has not said that it ended
        if isinstance(error, Stopped):
            interrupts.seen()
            error.mend = error.mend or mend
        if isinstance(error, TakenOver):
            _let_go(run.run_id)
            raise
        if isinstance(error, Unanswered) and mend:
            error.add_note(f"go on with --resume {run.run_id}")
        mlflow.MlflowClient().set_tag(run.run_id, NOTE, failure(error))
        if isinstance(error, Stopped | KeyboardInterrupt):
            _end(run.run_id, "KILLED")
        raise


def _end(run_id: str, status: str) -> None:
    """End a run, as the active one where it is that."""
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        mlflow.end_run(status)
    else:  # in another thread, which has no active run
        mlflow.MlflowClient().set_terminated(run_id, status)


def _let_go(run_id: str) -> None:
    """Make a run of another process's the active one no longer, and write nothing to it."""
    from mlflow.tracking import fluent

    # MLflow has no public way: each of them sets the run's status, also at the end of the process.
    stack = fluent._active_run_stack.get()
    stack[:] = [active for active in stack if active.info.run_id != run_id]


@contextmanager
def taken_up(run_id: str | None) -> Iterator[None]:
    """In the block this process owns a run that was stopped, below which nothing that earlier ones left is RUNNING.

    Nothing is done without a run, and with one that cannot be taken up: `stopped_run` says so.

    Raises:
        InputError: another process works on the run.
    """
    if run_id is None or not _can_be_taken_up(run_id):
        yield
        return
    with own(run_id):
        end_orphans(run_id)
        yield


def _can_be_taken_up(run_id: str) -> bool:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:
        return False
    there = run.info.lifecycle_stage == "active" and run.info.status != "FINISHED"
    return there and run.data.tags.get("valuedrift.role") in _RESUMABLE


def how_to_go_on(run_id: str) -> str:
    """What continues a run: the command that this process was started with, or the argument of a function."""
    return f"go on with: {command(run_id)}" if command_of_ours() else f"go on with resumed={run_id!r}"


def _parents_experiment() -> str:
    import mlflow

    active = mlflow.active_run()
    assert active is not None
    return str(active.info.experiment_id)


def _continue(run_id: str) -> OpenRun:
    """Make a stopped run ready to be opened again, in its own experiment and without the reason of its failure.

    The run that ``mlflow run`` has opened for this process stays empty; it says where the work is, and stands under it.
    """
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient()
    stopped = client.get_run(run_id)
    # start_run refuses a run of another experiment than the active one.
    # The call also sets the variable by which the processes of a stage find the experiment.
    mlflow.set_experiment(experiment_id=stopped.info.experiment_id)
    # The reason of its failure; it would stand there for good if it now ends well.
    if NOTE in stopped.data.tags:
        client.delete_tag(run_id, NOTE)
    opened = os.environ.pop("MLFLOW_RUN_ID", None) if mlflow.active_run() is None else None
    if opened and opened != run_id:
        client.set_tag(opened, "mlflow.parentRunId", run_id)
        client.set_tag(opened, "valuedrift.role", "resumption")
        client.set_tag(opened, NOTE, f"Continues run {run_id}")
        client.update_run(opened, name="resumption")
    return OpenRun.continued(run_id)


def is_open() -> bool:
    """Whether a run is active."""
    import mlflow

    return mlflow.active_run() is not None


def close(run: OpenRun) -> None:
    """End the active run, if it is this one."""
    import mlflow

    active = mlflow.active_run()
    # Somebody may have opened another one since; that is not ours to end.
    if active is not None and active.info.run_id == run.run_id:
        mlflow.end_run()


def adopt(begun: str | None = None, *, name: str, parameters: Mapping[str, str]) -> OpenRun:
    """The active run; where there is none, one is opened, which whoever asked for it must ``close``.

    ``begun`` is the run that an earlier process has logged the same work to: where none is active it is opened again,
    and in either what was logged before is not logged twice. A run that is opened here gets the name, and either gets
    the parameters that it does not have.
    """
    import mlflow
    from mlflow import MlflowClient

    active = mlflow.active_run()
    if active is None:
        opened_once(address())
        active = mlflow.start_run(run_id=begun, run_name=None if begun else name)
        mark_as_training(active.info.experiment_id)
    run_id = str(active.info.run_id)
    run = OpenRun(run_id) if begun is None else OpenRun.continued(run_id)
    # Of a run of somebody's own the role may be another one already.
    if "valuedrift.role" not in MlflowClient().get_run(run_id).data.tags:
        log_tags(run, {"role": "training", "version": package_version()})
    log_parameters(run_id, parameters)
    return run


@contextmanager
def share(run_id: str) -> Iterator[OpenRun]:
    """Write to the run that another process has opened, as the active run of this one."""
    import mlflow

    with mlflow.start_run(run_id=run_id):
        try:
            # As continued: where a stage is resumed, this process too must not log again what is there.
            yield OpenRun.continued(run_id)
        except Stopped:
            _end(run_id, "KILLED")
            raise


def adopt_evaluation(run: OpenRun, name: str, parameters: Mapping[str, str]) -> None:
    """Say of a run that MLflow has opened for an evaluation what it is; one that is something already stays that.

    Its name is replaced where it is one of MLflow's random ones.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    known = client.get_run(run.run_id)
    if "valuedrift.role" in known.data.tags:
        return
    log_tags(run, {"role": "evaluation", "version": package_version()})
    log_parameters(run.run_id, parameters)
    if _RANDOM.fullmatch(known.info.run_name or ""):
        client.update_run(run.run_id, name=name)


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
        with suppress(MlflowException):  # the reason may be that the store lets nobody write
            client.set_tag(run_id, NOTE, failure(error))
            if isinstance(error, InputError):
                entry_point = client.get_run(run_id).data.tags.get("mlflow.project.entryPoint", "")
                client.update_run(run_id, name=" · ".join(filter(None, ("refused", entry_point))))
