"""The model registry: versions, their aliases, descriptions and tags; and the best of a run's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.tracking.away import insistently
from valuedrift_mlflow.tracking.earlier import stages_of
from valuedrift_mlflow.tracking.models import ALIAS, VERSION, check_has_weights

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

_ALIAS_NAME = re.compile(r"[A-Za-z][\w-]*")


def registered_version(uri: str, field: str) -> tuple[str, str]:
    """The name and the version of a registered model by ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.

    Raises:
        InputError: the URI names no registered version; ``field`` is what needs one.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    allowed = "models:/NAME/VERSION or models:/NAME@ALIAS of a registered model"
    by_version, by_alias = VERSION.fullmatch(uri), ALIAS.fullmatch(uri)
    try:
        if by_version:
            found = MlflowClient().get_model_version(by_version["name"], by_version["version"])
        elif by_alias:
            found = MlflowClient().get_model_version_by_alias(by_alias["name"], by_alias["alias"])
        else:
            raise InputError(problem(field, uri, allowed))
    except MlflowException as error:
        raise InputError(problem(field, uri, allowed, one_line(error.message))) from None
    return str(found.name), str(found.version)


def set_alias(name: str, version: str, alias: str) -> None:
    """Let an alias of a registered model name this version."""
    from mlflow import MlflowClient

    MlflowClient().set_registered_model_alias(name, alias, version)


def is_model_name(name: str) -> bool:
    """Whether MLflow lets a model have this name: not an empty one, and none with a character that URIs need."""
    return bool(name.strip()) and not set(name) & set("/:.%\"'")


def check_model_name(name: str, field: str) -> None:
    """Refuse a name that MLflow lets no model have.

    Raises:
        InputError: it is one.
    """
    if not is_model_name(name):
        raise InputError(problem(field, name, "a name without / : . % and quotes"))


def check_alias(alias: str, field: str) -> None:
    """Refuse an alias that no registry takes.

    Raises:
        InputError: it is no word, or reads like a version or ``latest``.
    """
    if not _ALIAS_NAME.fullmatch(alias) or re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE):
        raise InputError(problem(field, alias, "a word of letters, digits, - and _, not `latest` and not like v1"))


def register(model_uri: str, name: str, *, card: str, tags: Mapping[str, str], alias: str) -> str:
    """Register a model as a version with a description, tags and an alias; returns the version.

    A model that has a version of that name keeps it: a job that was killed behind its creation makes no second one.

    Args:
        model_uri: ``models:/m-...``.
        name: of the registered model, which is made where there is none.
        card: the version's description.
        tags: of the version, under ``valuedrift.``.
        alias: names this version from now on; none where it is empty.
    """
    import mlflow
    from mlflow import MlflowClient

    masked = {f"valuedrift.{key}": redacted(value) for key, value in tags.items()}

    def registered(_attempt: int) -> str:
        version = _version_of(model_uri, name) or str(mlflow.register_model(model_uri, name, tags=masked).version)
        MlflowClient().update_model_version(name, version, description=redacted(card))
        if alias:
            set_alias(name, version, alias)
        return version

    return insistently(registered)


def _version_of(model_uri: str, name: str) -> str | None:
    """The version that a model has under a name; None where it has none."""
    from mlflow import MlflowClient

    model_id = model_uri.removeprefix("models:/")
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    return next((str(one.version) for one in versions if model_id == one.model_id or model_uri == one.source), None)


def best_checkpoint(
    run_or_experiment: str, metric: str = "drift/overall", where: str = "", *, largest: bool = False
) -> LoggedModel:
    """The checkpoint with the least (or the largest) value of a metric, among those that meet a condition.

    ``best_checkpoint(RUN_ID, where="metrics.`checkpoint/loss` < 1.2")`` has drifted least of those that have learnt so
    much. Its ``model_uri`` can be evaluated, registered and served. In plain MLflow it is
    ``mlflow.search_logged_models(experiment_ids=[ID], filter_string="metrics.`checkpoint/loss` < 1.2",
    order_by=[{"field_name": "metrics.drift/overall", "ascending": True}])``.

    Args:
        run_or_experiment: id of a stage's run or a pipeline's, or an experiment by its name or id.
        metric: a metric of the checkpoints: any of a stage's, or ``checkpoint/...``, what the trainer logged on the way
            to it. Evaluations count where the training has not logged it.
        where: a condition of ``mlflow.search_logged_models``.
        largest: whether the largest value is the best.

    Raises:
        InputError: there is no such run or experiment, the condition cannot be read, no model meets it, or the best one
            was logged without its weights; its name and value are told.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    experiment, runs = _place(run_or_experiment)
    found: list[LoggedModel] = []
    try:
        for run_id in runs or [""]:
            conditions = [*([f"source_run_id = '{run_id}'"] if run_id else []), *([where] if where else [])]
            found += mlflow.search_logged_models(
                experiment_ids=[experiment],
                filter_string=" AND ".join(conditions) or None,
                output_format="list",
            )
    except MlflowException as error:
        raise InputError(
            problem("where", where, "a condition of mlflow.search_logged_models", one_line(error))
        ) from None
    valued = [(value, model) for model in found if (value := _value(model, metric)) is not None]
    if not valued:
        allowed = f"a run or an experiment with a model that has {metric}" + (f" and meets {where}" if where else "")
        raise InputError(problem("run_or_experiment", run_or_experiment, allowed))
    value, best = sorted(valued, key=lambda pair: pair[0], reverse=largest)[0]
    check_has_weights(f"models:/{best.model_id}", f"run_or_experiment: {best.name} ({metric} {value:.4g})")
    return best


def _value(model: LoggedModel, metric: str) -> float | None:
    """The last value of a model's metric: of its own training, where that has logged some.

    Who evaluates a model later, from another baseline, logs the same metrics on it.
    """
    every = [one for one in model.metrics or [] if one.key == metric]
    values = [one for one in every if one.run_id == model.source_run_id] or every
    return float(max(values, key=lambda one: (one.step, one.timestamp)).value) if values else None


def _place(run_or_experiment: str) -> tuple[str, list[str]]:
    """The id of an experiment, and the runs that are meant in it; all where none are."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    run: Run | None
    try:
        run = client.get_run(run_or_experiment)
    except MlflowException:
        run = None
    if run is not None:
        pipeline = run.data.tags.get("valuedrift.role") == "pipeline"
        stages = [stage.run_id for stage in stages_of(run.info.run_id).values()] if pipeline else [run.info.run_id]
        return str(run.info.experiment_id), stages
    named = client.get_experiment_by_name(run_or_experiment)
    if named is None and run_or_experiment.isdecimal():
        try:
            named = client.get_experiment(run_or_experiment)
        except MlflowException:
            named = None
    if named is None:
        allowed = "the id of a run, or the name or id of an experiment"
        raise InputError(problem("run_or_experiment", run_or_experiment, allowed))
    return str(named.experiment_id), []
