"""Runs: how they are opened, nested, adopted and continued, and how a failure is described."""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from valuedrift_mlflow.inputs.errors import InputError, Unanswered, one_line
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.shown import safe, shortened
from valuedrift_mlflow.tracking.away import is_away, without_retries
from valuedrift_mlflow.tracking.links import origin
from valuedrift_mlflow.tracking.replay import current, spooled
from valuedrift_mlflow.tracking.spool import Attempt, Spool, delivers
from valuedrift_mlflow.tracking.store import address, mark_as_training, opened_once
from valuedrift_mlflow.tracking.view import save_view
from valuedrift_mlflow.tracking.write import NOTE, OpenRun, log_parameters, log_tags, set_tags

if TYPE_CHECKING:
    from mlflow import ActiveRun

Role = (
    Literal["pipeline", "ablation", "stage", "training", "evaluation", "comparison"]
    | Literal["judge_check", "judge_training", "audit", "synthesis", "attribution"]
)

_RANDOM = re.compile(r"[a-z]+-[a-z]+-\d+")  # the form of the names that MLflow gives, such as fortunate-colt-982
_RESUMABLE: tuple[Role, ...] = ("pipeline", "ablation", "stage")


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
) -> Iterator[OpenRun]:
    """Open a run, nested where one is active, or adopt the run of ``mlflow run``; an error leaves it FAILED.

    A run that is already active stays open, and it is FAILED too when the error passes through the block that opened
    it. With ``run_id`` a run that was stopped is continued: what it has logged stays and is not logged twice.
    ``color`` is that of the run in MLflow's charts.
    """
    nested = is_nested()
    if not nested:
        opened_once(address())
    adopted = not run_id and not nested and "MLFLOW_RUN_ID" in os.environ  # start_run takes it out
    continued = _continue(run_id) if run_id else None
    active = _started(None if adopted or run_id or not name else redacted(name), run_id, nested=nested)
    # Twice: where no spool can be made the run is ended too.
    with _ended(active, None), _spool_of(role, active.info.run_id) as spool, _ended(active, spool):
        origin(active.info.run_id)  # what is asked of it later, maybe while the store is away
        opened = replace(continued or OpenRun(active.info.run_id), spool=spool)
        try:
            if adopted and name:  # start_run takes no name for a run that is there already
                set_tags(opened, {"mlflow.runName": name})
            tags = {"role": role, "version": package_version(), "stage": stage, "recipe": recipe}
            log_tags(opened, {key: value for key, value in tags.items() if value})
            if color:
                set_tags(opened, {"mlflow.runColor": color})
            if not nested:
                _show(active, spool)
            if parameters:
                log_parameters(opened, parameters)
            yield opened
            if spool is not None:
                spool.wait()  # in here, so that a run with a write that is refused is FAILED
        except BaseException as error:  # an interrupt is a reason too
            if isinstance(error, Unanswered) and role in _RESUMABLE and not nested:
                # On the outermost run only: it is the one that can be resumed, with all below it.
                error.add_note(f"go on with --resume {opened.run_id}")
            _explain(opened, error)
            raise


def _started(name: str | None, run_id: str | None, *, nested: bool) -> ActiveRun:
    """Open a run, or one that is there again, and make it the active one."""
    import mlflow

    spool = current()
    if spool is not None and nested and not run_id:
        return _started_within(name, spool)
    return mlflow.start_run(
        run_id=run_id,
        run_name=name,
        # Of the run around it: MLflow would take the one that variables of the environment name.
        experiment_id=_parents_experiment() if nested and not run_id else None,
        nested=nested,
    )


def _started_within(name: str | None, spool: Spool) -> ActiveRun:
    """Open a run in the middle of a job: a store that is away is waited for, a run whose reply was lost is taken up.

    Raises:
        Undelivered: the store has stayed away.
    """
    import mlflow

    around, experiment = mlflow.active_run(), _parents_experiment()
    assert around is not None
    began, since, lost = int(time.time() * 1000), time.monotonic(), ""
    spool.wait()
    while True:
        try:
            with without_retries():
                lost = lost and _lost_run(experiment, around.info.run_id, began)
                if lost:
                    return mlflow.start_run(run_id=lost, nested=True)
                return mlflow.start_run(run_name=name, experiment_id=experiment, nested=True)
        except Exception as error:
            if not is_away(error):
                raise
            lost = "perhaps"
            if not spool.bears(error, since):
                raise spool.undelivered("no run can be opened") from error


def _lost_run(experiment: str, parent: str, since: int) -> str:
    """The id of a run below another one that was opened since a time (in ms), where there is one."""
    from mlflow import MlflowClient

    condition = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.start_time >= {since}"
    return next((str(one.info.run_id) for one in MlflowClient().search_runs([experiment], condition)), "")


@contextmanager
def _spool_of(role: Role, run_id: str) -> Iterator[Spool | None]:
    """Where a run writes to: the spool of the job, a new one for a job that trains, the store for all others."""
    if current() is None and role in _RESUMABLE:
        with spooled(run_id) as spool:
            yield spool
    else:
        yield current()


@contextmanager
def _ended(active: ActiveRun, spool: Spool | None) -> Iterator[None]:
    """End a run as MLflow's own block does; a store that is away learns of it later."""
    try:
        yield
    except BaseException as error:
        _end(active, "FAILED", spool, wait_s=0 if isinstance(error, KeyboardInterrupt) else None)
        raise
    _end(active, "FINISHED", spool, wait_s=None)


def _end(active: ActiveRun, status: str, spool: Spool | None, wait_s: float | None) -> None:
    import mlflow

    still = mlflow.active_run()
    if still is None or still.info.run_id != active.info.run_id:  # somebody has ended it
        return
    if spool is None:
        mlflow.end_run(status)
        return
    spool.drained(wait_s)
    try:
        with without_retries():
            mlflow.end_run(status)  # whatever the store says, the run is no longer the active one
    except Exception as error:
        if not is_away(error):
            raise
        told = {"run_id": active.info.run_id, "status": status, "time": int(time.time() * 1000)}
        spool.add("end", told, checked=False)
        spool.drained(wait_s)


@delivers("end")
def _end_later(attempt: Attempt, *, run_id: str, status: str, time: int) -> None:
    from mlflow import MlflowClient

    MlflowClient().set_terminated(run_id, status, time)


def _show(active: ActiveRun, spool: Spool | None) -> None:
    """Have the experiment of a job's run shown as what it is."""
    from mlflow import MlflowClient

    if spool is not None:
        spool.wait()  # the view goes by the run's tags
    mark_as_training(active.info.experiment_id)
    save_view(MlflowClient().get_run(active.info.run_id))


def _explain(run: OpenRun, error: BaseException) -> None:
    """Note on a run why it has failed."""
    try:
        set_tags(run, {NOTE: failure(error)})
    except Exception as other:  # the reason is that the store takes nothing: it must not hide the first one
        error.add_note(f"the reason is not noted on run {run.run_id}: {one_line(other)}")


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
    log_parameters(run, parameters)
    return run


@contextmanager
def share(run_id: str) -> Iterator[OpenRun]:
    """Write to the run that another process has opened, as the active run of this one."""
    import mlflow

    active = mlflow.start_run(run_id=run_id)
    above = origin(run_id).parent
    with _ended(active, None), spooled(run_id, *([above] if above else [])) as spool, _ended(active, spool):
        # As continued: where a stage is resumed, this process too must not log again what is there.
        yield replace(OpenRun.continued(run_id), spool=spool)
        spool.wait()


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


def failure(error: BaseException) -> str:
    """The description of a failed run: the reason first, then where it happened."""
    reason = str(error) or type(error).__name__
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
