"""Runs: how they are opened, nested, adopted, taken up and shared."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Literal

from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.tracking.delivery import Attempt, delivers
from valuedrift_mlflow.tracking.earlier import end_orphans
from valuedrift_mlflow.tracking.ending import end, end_now, fail
from valuedrift_mlflow.tracking.lease import Lease, check_owner, is_owned, own, stale_after
from valuedrift_mlflow.tracking.links import origin
from valuedrift_mlflow.tracking.opening import continue_run, is_nested, start
from valuedrift_mlflow.tracking.replay import current, deliver_left, shared_by, spooled
from valuedrift_mlflow.tracking.spool import Spool
from valuedrift_mlflow.tracking.store import (
    address,
    command,
    command_of_ours,
    keep_password_apart,
    mark_as_training,
    opened_once,
)
from valuedrift_mlflow.tracking.view import save_view
from valuedrift_mlflow.tracking.write import OpenRun, log_parameters, log_tags, send, set_tags, settle

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
    ``lease``, and what is written to a job that trains goes by a spool, see ``spool``. ``color`` is that of the run in
    MLflow's charts; ``named`` are further tags that it has from the first.
    """
    nested = is_nested()
    if not nested:
        keep_password_apart()
        opened_once(address())
    check_owner()
    stale_after()  # a setting that cannot be is refused before there is a run
    continued = continue_run(run_id) if run_id else None
    adopted = not run_id and not nested and "MLFLOW_RUN_ID" in os.environ  # start_run takes it out
    resumable = role in _PARENTS or (role == "stage" and not nested)
    name = redacted(name) if name else None
    tags = {"role": role, "version": package_version(), "stage": stage, "recipe": recipe, **(named or {})}
    with ExitStack() as opening:  # left last: a run is given back when it has ended
        active = start(run_id, None if adopted or run_id else name, tags)
        opened = continued or OpenRun(active.info.run_id)
        mend = how_to_go_on(opened.run_id) if resumable else ""
        owning = Lease(opened.run_id) if resumable and not is_owned(opened.run_id) else None
        if owning:
            opening.callback(owning.give_back)
        opening.enter_context(interrupts.ending(partial(end_now, opened.run_id), mend))
        take = partial(owning.take, new=not run_id) if owning else None
        with _ended(opened, _spool_of(role, opened.run_id), partial(fail, mend=mend), take) as opened:
            origin(opened.run_id)  # what is asked of it later, maybe while the store is away
            # start_run takes no name for a run that is there already.
            given = {"mlflow.runName": redacted(name) if adopted and name else None, "mlflow.runColor": color}
            if any(given.values()):
                set_tags(opened, {key: value for key, value in given.items() if value})
            if not nested or role == "audit":  # stages have the view of their pipeline
                send(opened, "view", training=not nested)
            if parameters:
                log_parameters(opened, parameters)
            yield opened


@contextmanager
def _ended(
    run: OpenRun,
    spool: AbstractContextManager[Spool | None],
    failed: Callable[[OpenRun, BaseException], None],
    take: Callable[[], None] | None = None,
) -> Iterator[OpenRun]:
    """The active run with its spool, ended behind the block; ``take`` makes it this process's own before that."""
    with ExitStack() as within:
        try:
            if take is not None:
                take()
            run = replace(run, spool=within.enter_context(spool))
            yield run
            settle(run)  # in here, so that a run with a write that is refused is FAILED
            end(run, "FINISHED")
        except BaseException as error:  # an interrupt is a reason too
            failed(run, error)
            raise


def _spool_of(role: Role, run_id: str) -> AbstractContextManager[Spool | None]:
    """Where a run writes to: the spool of the job, a new one for a job that trains, the store for all others."""
    return spooled(run_id) if current() is None and role in _RESUMABLE else nullcontext(current())


@delivers("view")
def _view(attempt: Attempt, *, run_id: str, training: bool) -> None:
    """Have the experiment of a run shown as what it is: of model training where a job begins, with the run's view."""
    from mlflow import MlflowClient

    run = MlflowClient().get_run(run_id)
    if training:
        mark_as_training(run.info.experiment_id)
    save_view(run)


@contextmanager
def taken_up(run_id: str | None) -> Iterator[None]:
    """In the block this process owns a run that was stopped, below which nothing that earlier ones left is RUNNING.

    Nothing is done without a run, and with one that cannot be taken up: `stopped_run` says so.

    Raises:
        InputError: another process works on the run.
        Undelivered: what an earlier process has written to it could not be delivered.
    """
    if run_id is None or not _can_be_taken_up(run_id):
        yield
        return
    with own(run_id):
        deliver_left(run_id)  # before what is left is ended: it may say how that ended
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
    log_parameters(run, parameters)
    return run


@contextmanager
def share(run_id: str, parent: int) -> Iterator[OpenRun]:
    """Write to the run that another process (``parent``) has opened, as the active run of this one."""
    import mlflow

    mlflow.start_run(run_id=run_id)
    # As continued: where a stage is resumed, this process too must not log again what is there.
    opened, above = OpenRun.continued(run_id), origin(run_id).parent
    spool = spooled(run_id, *([above] if above else []), folder=shared_by(run_id, parent))
    with _ended(opened, spool, partial(fail, noted=False)) as opened:  # the reason is the parent's to note
        yield opened


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
    log_parameters(run, parameters)
    if _RANDOM.fullmatch(known.info.run_name or ""):
        client.update_run(run.run_id, name=name)
