"""What the command ``gate`` does with its parsed flags: a comparison with an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow import tracking
from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.cli.compare_job import settings_of, show_prepared
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe.recipe import Recipe

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.compare import Compared, Prepared
    from valuedrift_mlflow.evaluation.gate import Gate
    from valuedrift_mlflow.report.display import Display


def gate_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the command ``gate``.

    Raises:
        SystemExit: with the gate's outcome as the exit code, where that is not 0.
    """
    from valuedrift_mlflow.evaluation.compare import run_comparison
    from valuedrift_mlflow.evaluation.gate import Gate, Outcome, checked_names, checks_of
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    bound = _bound(arguments.max_drift)
    files = _files(arguments)
    release = tracking.registered_version(arguments.model, "alias") if arguments.alias else None
    display = Display()
    quiet_libraries()
    prepared = _prepared(own, recipe, arguments, bound)
    checked = checked_names(arguments.topics, prepared.matched.suite)
    if arguments.dry_run:
        show_prepared(prepared, display)
        return
    with display.live():
        if prepared.to_ask:
            asked = prepared.config.samples * len(prepared.matched.suite.items) * len(prepared.to_ask)
            display.start("responses", asked)
        made, compared = run_comparison(prepared, lambda count: display.advance("responses", count))
    gate = Gate(arguments.model, arguments.baseline, bound, checks_of(compared.drift, checked), made.run_id)
    _write(gate, files)
    _show(gate, compared, display)
    if gate.outcome is not Outcome.WITHIN:
        raise SystemExit(int(gate.outcome))
    if release is not None:
        tracking.set_alias(*release, arguments.alias)
        display.line(f"{release[0]} version {release[1]} is now {arguments.alias}")


def _prepared(own: Command, recipe: Recipe, arguments: argparse.Namespace, bound: float) -> Prepared:
    """The comparison of the two sides, with what may be as its margin.

    Raises:
        InputError: as `compare`, and where the model is a pipeline of several.
    """
    from valuedrift_mlflow.evaluation.compare import prepare

    if not arguments.baseline:
        raise InputError(problem("baseline", "nothing", "what the model must not have drifted from", "give --baseline"))
    named, otherwise = settings_of(recipe, arguments, own)
    prepared = prepare(
        [arguments.model],
        arguments.baseline,
        judge=arguments.judge,
        suite=arguments.suite,
        settings={**named, "margin": bound},
        otherwise=otherwise,
    )
    if len(prepared.targets) > 2:
        stages = ", ".join(target.name for target in prepared.targets[1:])
        raise InputError(problem("model", f"{arguments.model}, a pipeline of {stages}", "one model, run or table"))
    return prepared


def _files(arguments: argparse.Namespace) -> dict[Path, str]:
    """The files to write, each with its form.

    Raises:
        InputError: a file in a folder that is not there.
    """
    files = {Path(name): form for name, form in ((arguments.junit, "junit"), (arguments.json, "json")) if name}
    for file in files:
        if not file.expanduser().absolute().parent.is_dir():
            raise InputError(problem("junit, json", str(file), "a file in an existing folder"))
    return files


def _show(gate: Gate, compared: Compared, display: Display) -> None:
    """Print all that was checked, and the outcome in a line."""
    from valuedrift_mlflow.evaluation.certainty import measured_line
    from valuedrift_mlflow.evaluation.gate import Outcome

    columns = ["topic", "verdict", "net drift [95 % interval]"]
    display.table(f"Drift of {gate.model} from {gate.baseline}, at most {gate.max_drift:g}", columns, gate.rows)
    for note in compared.notes:
        display.line(note)
    if gate.outcome is Outcome.WITHIN:
        display.line(f"within {gate.max_drift:g}")
    elif gate.outcome is Outcome.CANNOT_TELL:
        advice = measured_line(compared.drift, 1)
        display.line(advice or f"cannot tell whether the drift is within {gate.max_drift:g}")
    else:
        display.line(f"drifted by more than {gate.max_drift:g}: {', '.join(gate.drifted)}")


def _bound(text: str) -> float:
    from valuedrift_mlflow.evaluation.gate import check_bound

    try:
        bound = float(text)
    except ValueError:
        raise InputError(problem("max-drift", text, "a number between 0 and 1")) from None
    check_bound(bound, "max-drift")
    return bound


def _write(gate: Gate, files: dict[Path, str]) -> None:
    """Write what CI reads, and keep it with the run."""
    run = tracking.OpenRun(gate.run_id)
    tracking.log_text(run, gate.json(), "gate.json")
    tracking.log_text(run, gate.junit(), "gate.xml")
    for file, form in files.items():
        file.expanduser().write_text(gate.junit() if form == "junit" else gate.json(), encoding="utf-8")
