"""What the command ``ablate`` does with its parsed flags: the cells of one design or of several."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.inputs.errors import collecting, problem
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.tracking import check_free, how_to_open

if TYPE_CHECKING:
    from valuedrift_mlflow.pipeline.ablation import Result
    from valuedrift_mlflow.pipeline.designs import Design
    from valuedrift_mlflow.report.display import Display


def designed(own: Command, arguments: argparse.Namespace) -> list[tuple[Recipe, str, Design, str]]:
    """Of each design its recipe, where that was read, the design and its name."""
    from valuedrift_mlflow.pipeline.designs import load_design
    from valuedrift_mlflow.pipeline.designs import recipe_of as recipe_of_design

    names = [name for name in arguments.design.split(",") if name] or ["algorithms"]
    designs: list[tuple[Recipe, str, Design, str]] = []
    with collecting() as problems:
        if len(names) > 1 and arguments.resume:
            problems.add(problem("--resume", arguments.resume, "one design", "go on with the run of each"))
        for name in dict.fromkeys(names):
            design = problems.attempt(load_design, name)
            if design is not None:
                found = problems.attempt(recipe_of_design, design, arguments.recipe, arguments.set, own.recipe)
                designs += [] if found is None else [(*found, design, name)]
    return designs


def ablate_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``ablate``: every cell of each design, then tables, figures and reports on them."""
    from valuedrift_mlflow.pipeline import ablation, dry_run
    from valuedrift_mlflow.pipeline.cost import ablation_lines, cost_lines
    from valuedrift_mlflow.pipeline.design import prepare
    from valuedrift_mlflow.pipeline.plan import stage_data
    from valuedrift_mlflow.pipeline.resumed import begun_trainings, lines_of
    from valuedrift_mlflow.report.display import Display

    designs, display = designed(own, arguments), Display()
    with collecting() as problems:
        # That of dry runs fetches nothing from the hub.
        read = dry_run.read if arguments.dry_run else stage_data
        plans = [problems.attempt(prepare, *asked, read) for asked in designs]
    ready = [plan for plan in plans if plan is not None]
    if arguments.dry_run:
        goes_on = []
        if arguments.resume:
            check_free(arguments.resume)
            goes_on = lines_of(arguments.resume, begun_trainings(ready[0], arguments.resume))
        for plan in ready:
            dry_run.show(dry_run.dry_run(plan.recipe, plan.source), display)
            for line in goes_on:
                display.line(line)
            for line in ablation_lines(plan):
                display.line(line)
        for line in cost_lines(ready):
            display.line(line)
        return
    try:
        if len(ready) == 1:
            _show_ablation(ablation.run(ready[0], display, arguments.resume or None), display)
        else:
            for result in ablation.run_all(ready, display):
                _show_ablation(result, display)
    except ablation.CellsFailed as failure:
        display.line(str(failure))
        display.line(how_to_open())
        # 1, not 2: the input was good. What went wrong stands above, cell by cell.
        raise SystemExit(1) from None
    display.line(how_to_open())


def _show_ablation(result: Result, display: Display) -> None:
    """Print what one design came to."""
    from valuedrift_mlflow.pipeline.ablation_summary import SUMMARY_COLUMNS, crossed, summarise, summary_rows

    summary = summarise(result.rows)
    display.table("Drift by cell, mean over seeds", SUMMARY_COLUMNS, summary_rows(summary))
    columns, drifts = crossed(summary)
    if drifts:
        display.table("Drift, mean over seeds", columns, drifts)
    for title, names, rows in result.topics.shown():
        display.table(title, names, rows)
    for line in result.topics.lines():
        display.line(line)
