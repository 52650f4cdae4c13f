"""What is compared: models, runs and tables, each with the measurement that it has, or the way to one."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation.evaluate import Config
from valuedrift_mlflow.evaluation.responses import is_table, load_responses
from valuedrift_mlflow.evaluation.subjects import responses_of_run
from valuedrift_mlflow.inputs.errors import collecting, problem
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.tracking import MeasuredRun

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_OF_A_RUN = re.compile(r"runs:/(?P<run>\w+)/(responses\.json|checkpoints/step-(?P<step>\d+)/?)")
# What changes the responses of a model: measurements that differ in it are not compared.
_SAMPLED_BY = ("temperature", "max_new_tokens", "stop", "thinking", "max_thinking_tokens")
# What may differ, and is told: tags of runs, and settings.
_NOTED = {"version": "versions of the package", "software": "libraries", "hardware": "machines", "seed": "seeds"}


@dataclass(frozen=True)
class Target:
    """One side of a comparison.

    Attributes:
        uri: as it was given.
        name: what tables and figures call it.
        measured: the runs that have measured it; none of a table alone, or of a model that nobody has measured.
        table: the URI of a table of responses that belongs to no run.
        model: the URI by which it can be asked; empty where there are responses alone.
    """

    uri: str
    name: str
    measured: Sequence[MeasuredRun] = ()
    table: str = ""
    model: str = ""

    @property
    def run(self) -> MeasuredRun | None:
        """The run whose responses stand for it; None where it has a table alone or has to be asked."""
        return self.measured[0] if self.measured else None


def found(uri: str, where: str = "targets", how: How = STORED) -> list[Target]:
    """What a URI names: a model, a table of responses, a run, or a pipeline, which is its base and all its stages.

    Raises:
        InputError: there is no such thing, or it runs code that ``how`` does not allow; ``where`` names the parameter.
    """
    run_id = uri if _RUN_ID.fullmatch(uri) and not Path(uri).is_dir() else ""
    if responses_of_run(uri) != uri:
        run_id = uri.removeprefix("runs:/").strip("/")
    if run_id:
        return [_of_run(uri, run) for run in tracking.measured_runs(run_id, where)]
    inner = _OF_A_RUN.fullmatch(uri)
    if inner is not None and inner["step"] is None:
        return [_of_run(uri, run) for run in tracking.measured_runs(inner["run"], where)[:1]]
    if is_table(uri):
        return [Target(uri, Path(uri).stem, table=uri)]
    # A checkpoint that was logged without weights can be compared as it was measured; it cannot be asked.
    alone = _of_measurements(uri)
    if alone is not None:
        return [alone]
    models.check_model(uri, where, how)
    model_id = tracking.logged_model_id(uri)
    if model_id is None:
        return [Target(uri, models.short_name(uri), model=uri)]
    by_id = inner is not None or uri.startswith("models:/m-")
    name = tracking.logged_name(model_id) if by_id else models.short_name(uri)
    return [Target(uri, name, tracking.measurements_of_model(model_id), model=uri)]


def _of_measurements(uri: str) -> Target | None:
    """A checkpoint that has measurements and no weights; None of anything else."""
    model_id = tracking.measured_alone(uri)
    measured = tracking.measurements_of_model(model_id) if model_id else []
    return Target(uri, tracking.logged_name(model_id), measured) if model_id and measured else None


def _of_run(uri: str, run: MeasuredRun) -> Target:
    return Target(uri, run.name.removeprefix("evaluate · "), [run])


def named_apart(targets: Sequence[Target]) -> list[Target]:
    """The targets with names that tell them apart: by their run's id, and where they share one by their place."""
    by_run = [target.run.run_id[:6] if target.run else "" for target in targets]
    by_place = [f"no. {place}" for place in range(1, len(targets) + 1)]
    named = list(targets)
    for marks in (by_run, by_place):
        count = Counter(target.name for target in named)
        named = [
            replace(target, name=f"{target.name} ({mark})") if mark and count[target.name] > 1 else target
            for target, mark in zip(named, marks, strict=True)
        ]
    return named


@dataclass(frozen=True)
class Matched:
    """Targets that can be compared: the suite, how those are asked that have to be, and what differs and may."""

    targets: Sequence[Target]
    suite: Suite
    settings: Config
    notes: Sequence[str]


def matched(targets: Sequence[Target], suite: Suite | None, given: Config, named: Collection[str]) -> Matched:
    """Find for each target the responses that can be compared with the others'.

    Suite and sampling settings are those that were given (of ``given`` those in ``named``), else those of the first
    target that has some, else ``given``.

    Raises:
        InputError: responses to another suite, or sampled with other settings, of something that cannot be asked anew.
    """
    runs = [run for target in targets for run in target.measured[:1]]
    tables = [run.table for run in runs[:1]] or [target.table for target in targets if target.table][:1]
    suite = suite or (load_responses(tables[0]).suite if tables else suites.load())
    settings = _settings(runs, given, named)
    kept: list[Target] = []
    notes: list[str] = []
    with collecting() as problems:
        for target in targets:
            reasons = [_misfit(run, suite, settings) for run in target.measured]
            fits = [run for run, reason in zip(target.measured, reasons, strict=True) if not reason]
            reason = next(filter(None, reasons), "")
            if target.table and load_responses(target.table, otherwise=suite).suite.hash != suite.hash:
                reason = f"answers {load_responses(target.table).suite.identity}"
            if not fits and reason and not target.model:
                mend = "give models, which can be asked anew, or what was measured alike"
                problems.add(problem(target.uri, reason, f"{suite.identity}, {_told(settings)}", mend))
            elif not fits and reason:
                notes.append(f"{target.name} is asked anew: what there is {reason}")
            kept.append(replace(target, measured=fits))
    return Matched(kept, suite, settings, [*notes, *_differences(kept)])


def _settings(runs: Sequence[MeasuredRun], given: Config, named: Collection[str]) -> Config:
    """How models are asked: as it was given by name, else as in the first of these runs that says it."""
    known: dict[str, object] = {}
    for key in (*_SAMPLED_BY, "samples"):
        recorded = next((run.settings[key] for run in runs if key in run.settings), None)
        if recorded is not None and key not in named:
            known[key] = _listed(recorded) if key == "stop" else recorded
    return given.model_copy(update=Config.checked(known).model_dump(include=set(known)))


def _listed(recorded: str) -> object:
    """The list that a run has recorded as text; the text where it is none."""
    try:
        return ast.literal_eval(recorded)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return recorded


def _told(settings: Config) -> str:
    return ", ".join(f"{key} {getattr(settings, key)}" for key in _SAMPLED_BY[:2])


def _misfit(run: MeasuredRun, suite: Suite, settings: Config) -> str:
    """Why the responses of a run cannot be compared; empty where they can be."""
    digest = run.tags.get("suite.hash") or load_responses(run.table, otherwise=suite).suite.hash
    if digest != suite.hash:
        return f"answers {run.tags.get('suite.uri', 'another suite')}, hash {digest}"
    for key in _SAMPLED_BY:
        wanted, recorded = str(getattr(settings, key)), run.settings.get(key)
        if recorded is not None and recorded != wanted:
            return f"was sampled with {key} {recorded}"
    return ""


def _differences(targets: Sequence[Target]) -> list[str]:
    """What differs between the runs and may: one line each."""
    lines = []
    for key, what in _NOTED.items():
        names: dict[str, list[str]] = {}
        for target in targets:
            run = target.run
            value = (run.settings.get(key) or run.tags.get(key)) if run is not None else None
            if value:  # who does not tell it is left out
                names.setdefault(value, []).append(target.name)
        if len(names) > 1:
            told = "; ".join(f"{value} ({', '.join(own)})" for value, own in names.items())
            lines.append(f"{what} differ: {told}")
    return lines
