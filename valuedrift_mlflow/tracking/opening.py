"""How a run is opened, within a job by its spool's patience, and made ready to be continued."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.tracking.away import insistently, is_away, without_retries
from valuedrift_mlflow.tracking.lease import check_owner
from valuedrift_mlflow.tracking.replay import current
from valuedrift_mlflow.tracking.spool import Spool
from valuedrift_mlflow.tracking.write import NOTE, OpenRun

if TYPE_CHECKING:
    from mlflow import ActiveRun

_OPENING = "valuedrift.opening"  # a tag with a word of its own for each run: by it one whose reply was lost is found


def is_nested() -> bool:
    """Whether a run that is opened now has a parent."""
    import mlflow

    return mlflow.active_run() is not None


def start(run_id: str | None, name: str | None, tags: Mapping[str, str | None]) -> ActiveRun:
    """Make a run the active one, nested where one is active: a new one with its name and this package's tags.

    With ``run_id`` it is one that is there.

    Raises:
        TakenOver: another process owns a run that this one works on.
        Undelivered: the store has stayed away in the middle of a job.
    """
    import mlflow

    spool, nested = current(), is_nested()
    # From the first, for whoever finds the run of a process that was killed right behind this.
    given = {f"valuedrift.{key}": redacted(value) for key, value in tags.items() if value}
    if spool is not None and nested and not run_id:
        return _started_within(name, given, spool)
    check_owner(sure=True)
    # A second request would make another run, and fail on an experiment that the first one has made.
    known = run_id or (None if nested else os.environ.get("MLFLOW_RUN_ID"))  # the first attempt takes that out
    word = uuid.uuid4().hex

    def started(attempt: int) -> ActiveRun:
        there = run_id if attempt == 1 else known or _opened_by(word)
        return mlflow.start_run(
            run_id=there,
            run_name=None if there else name,
            # Of the run around it: MLflow would take the one that variables of the environment name.
            experiment_id=_parents_experiment() if nested and not there else None,
            nested=nested,
            tags=given if known else given | {_OPENING: word},
        )

    return insistently(started)


def _opened_by(word: str) -> str | None:
    """The id of the run that an attempt to open one has made, whose reply was lost; None where it has made none."""
    import mlflow

    asked = f"tags.`{_OPENING}` = '{word}'"
    found = mlflow.search_runs(search_all_experiments=True, filter_string=asked, output_format="list")
    return str(found[0].info.run_id) if found else None


def _started_within(name: str | None, tags: dict[str, str], spool: Spool) -> ActiveRun:
    """Open a run in the middle of a job: a store that is away is waited for, a run whose reply was lost is taken up.

    Raises:
        Undelivered: the store has stayed away.
    """
    import mlflow

    experiment, word = _parents_experiment(), uuid.uuid4().hex
    since, perhaps_there = time.monotonic(), False
    spool.wait()
    while True:
        try:
            with without_retries():
                check_owner(sure=True)
                lost = _opened_by(word) if perhaps_there else None
                if lost:
                    return mlflow.start_run(run_id=lost, nested=True)
                given = tags | {_OPENING: word}
                return mlflow.start_run(run_name=name, experiment_id=experiment, nested=True, tags=given)
        except Exception as error:
            if not is_away(error):
                raise
            perhaps_there = True
            if not spool.bears(error, since):
                raise spool.undelivered("no run can be opened") from error


def _parents_experiment() -> str:
    import mlflow

    active = mlflow.active_run()
    assert active is not None
    return str(active.info.experiment_id)


def continue_run(run_id: str) -> OpenRun:
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
