"""What the command ``compare`` does with its parsed flags."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.evaluation.settings import Measuring
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.tracking import how_to_open

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.compare import Compared, Prepared
    from valuedrift_mlflow.report.display import Display

Settings: TypeAlias = dict[str, object]


def settings_of(recipe: Recipe, arguments: argparse.Namespace, own: Command) -> tuple[Settings, Settings]:
    """What the user has named, in a recipe of their own or by ``--set``; and what the command's recipe says."""
    measuring = set(Measuring.model_fields) - {"judge"}
    said = {setting.partition("=")[0] for setting in arguments.set.split()}
    if arguments.recipe != own.recipe:
        said |= recipe.model_fields_set
    whole = recipe.model_dump(include=measuring)
    named = {key: value for key, value in whole.items() if key in said}
    code = {"trust_remote_code": recipe.base.trust_remote_code, "allow_pyfunc_code": recipe.allow_pyfunc_code}
    return named, {**whole, **code}


def compare_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``compare``: every target against the baseline."""
    from valuedrift_mlflow.evaluation.compare import prepare, run_comparison
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    display = Display()
    quiet_libraries()
    named, otherwise = settings_of(recipe, arguments, own)
    prepared = prepare(
        arguments.targets,
        arguments.baseline or None,
        judge=arguments.judge,
        suite=arguments.suite,
        settings=named,
        otherwise=otherwise,
    )
    if arguments.dry_run:
        show_prepared(prepared, display)
        return
    with display.live():
        if prepared.to_ask:
            items, samples = len(prepared.matched.suite.items), prepared.config.samples
            display.start("responses", samples * items * len(prepared.to_ask))
        _, compared = run_comparison(prepared, lambda count: display.advance("responses", count))
    show_compared(compared, display)
    display.line(how_to_open())


def show_prepared(prepared: Prepared, display: Display) -> None:
    """Print what a comparison would do."""
    suite, config = prepared.matched.suite, prepared.config
    display.line(f"Dry run of compare: nothing was computed; suite {suite.identity}, judge {config.judge}")
    for place, target in enumerate(prepared.targets):
        if target in prepared.to_ask:
            how = f"asked {len(suite.items) * config.samples:,} times"
        else:
            how = f"read from {target.run.table if target.run else target.table}"
        display.line(f"{'target' if place else 'baseline'} {target.name} ({target.uri}): {how}")
    for note in prepared.matched.notes:
        display.line(note)


def show_compared(compared: Compared, display: Display) -> None:
    """Print the table of targets, what moved, and what is to be minded."""
    from valuedrift_mlflow.evaluation.compare_report import overall_rows
    from valuedrift_mlflow.evaluation.headline import lead_of

    columns, rows = overall_rows(compared)
    display.table(f"Compared with {compared.targets[0].name}", columns, rows)
    suite = compared.measurements[-1].suite
    for place, name in enumerate(compared.names, start=1):
        lead = lead_of(name, compared.drift, compared.axes, suite, place)
        display.line(f"{name}: {lead.verdict}. {lead.text}")
    for note in compared.notes:
        display.line(note)
