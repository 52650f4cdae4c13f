"""What earlier processes have left in the tracking store: runs that can be continued, and what they came to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.tracking.away import patiently
from valuedrift_mlflow.tracking.replay import deliver_left
from valuedrift_mlflow.tracking.write import NOTE, PARAMETERS_AT_ONCE, recorded_value

if TYPE_CHECKING:
    from mlflow.entities import Run

# Tags that a run has from its first moment: parameters come later, and a process may be killed between the two.
FINGERPRINT = "fingerprint"  # of a model that a stage starts from
STAGE_NAME, AUDITED = "valuedrift.stage_name", "valuedrift.audited"
_KINDS = {
    "pipeline": "a pipeline, by the entry point main",
    "ablation": "an ablation",
    "stage": "a single stage",
}


@dataclass(frozen=True)
class EarlierRun:
    """A run of an earlier process.

    Attributes:
        run_id: its id.
        status: as MLflow names it; a run whose process was killed is still RUNNING.
        training_digest: hash of the rows that it trains on, None where it has recorded none.
    """

    run_id: str
    status: str
    training_digest: str | None

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.status == "FINISHED"


def earlier(run: Run) -> EarlierRun:
    """What can be told of a run that another process has made."""
    digest = None
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        if {tag.key: tag.value for tag in entry.tags}.get("mlflow.data.context") == "training":
            digest = str(entry.dataset.digest)
    return EarlierRun(run.info.run_id, run.info.status, digest)


def stopped_run(
    run_id: str,
    role: Literal["pipeline", "ablation", "stage"],
    parameters: Mapping[str, str],
    *,
    keys: Collection[str],
    suite: str,
) -> EarlierRun:
    """A run that can be taken up with these settings.

    Args:
        run_id: its id.
        role: what it must be.
        parameters: the settings now.
        keys: names of settings; other parameters of the run (those of ``mlflow run``) are not compared.
        suite: hash of the suite now.

    Raises:
        InputError: no such run, a run of another kind, a finished one, or a recipe that differs from the one it has
            recorded; every key that differs is named.
        Undelivered: what an earlier process has written to it could not be delivered.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    deliver_left(run_id)
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        reason = str(error.message).splitlines()[0]
        raise InputError(problem("--resume", run_id, "the id of a run in the tracking store", reason)) from None
    tags = run.data.tags
    recorded_role = tags.get("valuedrift.role", "no role")
    # A deleted run can still be got by its id.
    if recorded_role != role or run.info.lifecycle_stage != "active":
        allowed = f"a run of {_KINDS[role]}"
        raise InputError(problem("--resume", f"{run_id} ({recorded_role}, {run.info.lifecycle_stage})", allowed))
    if role == "stage" and "mlflow.parentRunId" in tags:
        mend = f"resume what it is part of, by main or ablate, with --resume {tags['mlflow.parentRunId']}"
        raise InputError(problem("--resume", f"{run_id}, a stage of a pipeline", "a run without a parent", mend))
    if run.info.status == "FINISHED":
        raise InputError(problem("--resume", f"{run_id}, finished", "a run that was stopped or has failed"))
    differences = _differences(run, parameters, keys)
    # A run that was killed early has recorded none.
    recorded_suite = tags.get("valuedrift.suite.hash")
    if recorded_suite and recorded_suite != suite:
        differences.append(problem("suite", suite, f"{recorded_suite}, as the run has recorded"))
    if differences:
        raise InputError(differences)
    return earlier(run)


def _differences(run: Run, parameters: Mapping[str, str], keys: Collection[str]) -> list[str]:
    """One line for each key whose value is not the one that the run has recorded."""
    params = run.data.params
    # A stage's settings stand there a second time without its name.
    stages = [f"{key.removesuffix('algorithm')}" for key in params if key.endswith(".algorithm")]
    twice = {key.removeprefix(name) for name in stages for key in params if key.startswith(name)}
    asked = {key for key in params if key in keys or ("." in key and key not in twice) or key in parameters}
    recorded = {key: params[key] for key in asked}
    parameters = _written(run, parameters)
    lines = []
    for key in sorted(recorded.keys() | parameters.keys()):
        # Of a longer value MLflow keeps these characters; see write.log_parameters.
        now, then = recorded_value(parameters.get(key, "nothing")), recorded.get(key, "nothing")
        if now != then:
            lines.append(problem(key, now, f"{then}, as run {run.info.run_id} has recorded", "resume with its recipe"))
    return lines


def _written(run: Run, parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Those of a run's parameters that it can have: a process that was killed while it wrote them left the first."""
    # What `mlflow run` was told stands in the run before; none of its names has a dot.
    by_mlflow = "mlflow.project.entryPoint" in run.data.tags
    own = [key for key in parameters if "." in key or not by_mlflow]
    for start in range(0, len(own), PARAMETERS_AT_ONCE):
        if not any(key in run.data.params for key in own[start:]):
            return {key: value for key, value in parameters.items() if key not in own[start:]}
    return parameters


def check_data(run: EarlierRun, stage: str, uri: str, digest: str) -> None:
    """Refuse training data that changed since a stage was stopped.

    Raises:
        InputError: the rows of ``uri`` have another digest than those that the run has recorded.
    """
    if run.training_digest not in (None, digest):
        raise InputError(
            problem(
                f"{stage}.data",
                f"{uri} with digest {digest}",
                f"digest {run.training_digest}, as run {run.run_id} has recorded",
                "the rows are not those that the stage began with",
            )
        )


def check_fingerprint(run_id: str, part: str, field: str, uri: str, fingerprint: str) -> None:
    """Refuse a model that changed since a stage began with it: other files in its folder, an alias that has moved.

    Args:
        run_id: the run of the stage.
        part: what the run calls the model, ``model`` or ``reward``.
        field: what problems call it.
        uri: the model.
        fingerprint: what it is now; empty where that is not known.

    Raises:
        InputError: it is another one than the run has recorded.
    """
    from mlflow import MlflowClient

    recorded = MlflowClient().get_run(run_id).data.tags.get(f"valuedrift.{part}.{FINGERPRINT}", "")
    if recorded and fingerprint and recorded != fingerprint:
        mend = "the model is not the one that the stage began with: put that back, or begin a new run"
        allowed = f"{recorded}, as run {run_id} has recorded"
        raise InputError(problem(field, f"{uri}, which is {fingerprint}", allowed, mend))


def stages_of(parent: str) -> dict[str, EarlierRun]:
    """The stage runs of a pipeline or an ablation by the names of their stages (``base`` too)."""
    named: dict[str, EarlierRun] = {}
    for run in _children(parent, "stage"):
        # `valuedrift.stage` is the algorithm's word, which two stages may share. Runs of earlier versions have no
        # name but in their parameters, and the base has none there.
        names = [key.removesuffix(".algorithm") for key in run.data.params if key.endswith(".algorithm")]
        tags = run.data.tags
        name = tags.get(STAGE_NAME) or (names[0] if names else tags.get("valuedrift.stage", ""))
        # Where an earlier version has made two: the one that is finished, else the newest, which stands first.
        if name not in named or (run.info.status == "FINISHED" and not named[name].finished):
            named[name] = earlier(run)
    return named


def end_orphans(parent: str) -> None:
    """Mark as KILLED what earlier processes have left RUNNING below a run that this process owns, at any depth.

    Files that they were writing among the artifacts, here on this machine, are removed.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    _remove_half_written(client.get_run(parent))
    for run in _children(parent, None, "attributes.status = 'RUNNING'"):
        end_orphans(run.info.run_id)
        client.set_tag(run.info.run_id, NOTE, "**KILLED** its process ended without a word")
        client.set_terminated(run.info.run_id, "KILLED")


def _remove_half_written(run: Run) -> None:
    from mlflow import MlflowClient
    from mlflow.store.artifact.local_artifact_repo import _TEMP_ARTIFACT_PREFIX
    from mlflow.utils.file_utils import local_file_uri_to_path

    logged = MlflowClient().search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    for place in [run.info.artifact_uri, *(model.artifact_location for model in logged)]:
        if urlsplit(place).scheme in ("", "file"):
            for file in Path(local_file_uri_to_path(place)).rglob(f"{_TEMP_ARTIFACT_PREFIX}*"):
                file.unlink(missing_ok=True)


def begun_audits(parent: str) -> dict[tuple[str, str], str]:
    """The ids of a pipeline's audits that did not come to their end, by URI and digest of the data."""
    found = _children(parent, "audit", "attributes.status != 'FINISHED'")
    tagged = {run.info.run_id: run.data.tags for run in found}
    return {
        (tags[AUDITED], tags.get(f"{AUDITED}.digest", "")): run_id for run_id, tags in tagged.items() if AUDITED in tags
    }


def audits_of(parent: str) -> dict[tuple[str, str], dict[str, tuple[float, ...]]]:
    """What a pipeline's finished audits found: the (support, neutral, oppose) shares of topics, by URI and digest."""
    shares: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for run in _children(parent, "audit", "attributes.status = 'FINISHED'"):
        metrics = run.data.metrics
        topics = {key.split("/")[1] for key in metrics if key.startswith("stance_mix/")}
        shares[run.data.params["data"], run.data.params.get("data.digest", "")] = {
            topic: tuple(metrics[f"stance_mix/{topic}/{stance.value}"] for stance in STANCES)
            for topic in sorted(topics)
        }
    return shares


@patiently
def _children(parent: str, role: str | None, *conditions: str) -> list[Run]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    nested = [f"tags.`mlflow.parentRunId` = '{parent}'", *conditions]
    nested += [f"tags.`valuedrift.role` = '{role}'"] if role else []
    runs: list[Run] = []
    token: str | None = ""
    while token is not None:  # the store gives a thousand at a time; a large ablation has more
        page = client.search_runs([experiment], " and ".join(nested), page_token=token or None)
        runs += page
        token = page.token or None
    return runs


@patiently
def last_child(parent: str) -> str:
    """The id of the newest run that is nested in this one."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    nested = f"tags.`mlflow.parentRunId` = '{parent}'"
    [newest] = client.search_runs([experiment], nested, max_results=1, order_by=["attributes.start_time DESC"])
    return str(newest.info.run_id)


@patiently
def last_value(run_id: str, key: str) -> tuple[int, float]:
    """The last step that a metric of a run was logged at, and its value there."""
    from mlflow import MlflowClient

    last = max(MlflowClient().get_metric_history(run_id, key), key=lambda metric: metric.step)
    return int(last.step), float(last.value)
