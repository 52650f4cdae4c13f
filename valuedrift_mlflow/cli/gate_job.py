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
    from valuedrift_mlflow.evaluation.gate import Gate


def gate_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the command ``gate``.

    Raises:
        SystemExit: with the gate's outcome as the exit code, where that is not 0.
    """
    from valuedrift_mlflow.evaluation.certainty import measured_line
    from valuedrift_mlflow.evaluation.compare import prepare, run_comparison
    from valuedrift_mlflow.evaluation.gate import Gate, Outcome, checked_names, checks_of
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    bound = _bound(arguments.max_drift)
    if not arguments.baseline:
        raise InputError(problem("baseline", "nothing", "what the model must not have drifted from", "give --baseline"))
    files = {Path(name): form for name, form in ((arguments.junit, "junit"), (arguments.json, "json")) if name}
    for file in files:
        if not file.expanduser().absolute().parent.is_dir():
            raise InputError(problem("junit, json", str(file), "a file in an existing folder"))
    release = tracking.registered_version(arguments.model, "alias") if arguments.alias else None
    display = Display()
    quiet_libraries()
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
        names = ", ".join(target.name for target in prepared.targets[1:])
        raise InputError(problem("model", f"{arguments.model}, a pipeline of {names}", "one model, run or table"))
    names = checked_names(arguments.topics, prepared.matched.suite)
    if arguments.dry_run:
        show_prepared(prepared, display)
        return
    with display.live():
        if prepared.to_ask:
            asked = prepared.config.samples * len(prepared.matched.suite.items) * len(prepared.to_ask)
            display.start("responses", asked)
        made, compared = run_comparison(prepared, lambda count: display.advance("responses", count))
    gate = Gate(arguments.model, arguments.baseline, bound, checks_of(compared.drift, names), made.run_id)
    display.table(
        f"Drift of {gate.model} from {gate.baseline}, at most {bound:g}",
        ["topic", "verdict", "net drift [95 % interval]"],
        gate.rows,
    )
    for note in compared.notes:
        display.line(note)
    _write(gate, files)
    if gate.outcome is Outcome.WITHIN:
        display.line(f"within {bound:g}")
        if release is not None:
            tracking.set_alias(*release, arguments.alias)
            display.line(f"{release[0]} version {release[1]} is now {arguments.alias}")
    elif gate.outcome is Outcome.CANNOT_TELL:
        display.line(measured_line(compared.drift, 1) or f"cannot tell whether the drift is within {bound:g}")
    else:
        drifted = [check.name for check in gate.checks if check.verdict == "moved"]
        display.line(f"drifted by more than {bound:g}: {', '.join(drifted)}")
    if gate.outcome is not Outcome.WITHIN:
        raise SystemExit(int(gate.outcome))


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
