"""What the command ``attribute`` does with its parsed flags."""

from __future__ import annotations

import argparse

from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.tracking import how_to_open

_FIRST = 10  # rows of each quantity that a terminal shows
_WIDTH = 60  # characters of a row's text there


def attribute_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``attribute``: which rows of a run's training moved the stances."""
    from valuedrift_mlflow.pipeline.attribute import checked, plan_lines, run_attribution
    from valuedrift_mlflow.report.display import Display, quiet_libraries
    from valuedrift_mlflow.value_gap.attribution.report import Attributed, summary, top_table

    if not arguments.run:
        raise InputError(problem("run", "nothing", "the id of a stage's run, or of a pipeline's", "give it with run"))
    given = {name: getattr(arguments, name) for name in own.flags if getattr(arguments, name)}
    options = checked(given | {"seed": recipe.seed})
    display = Display()
    quiet_libraries()
    if arguments.dry_run:
        display.line("Dry run of attribute: nothing was computed")
        for line in plan_lines(options):
            display.line(line)
        return

    def show(result: Attributed) -> None:
        table = summary(result)
        display.table(f"What moved the stances of {result.stage}, first-order estimates", table.columns, table.cells)
        top = top_table(result, _FIRST)
        text = next(name for name in ("completion", "chosen", "prompt") if name in top.columns or top.empty)
        for quantity, first in top.groupby("quantity", sort=False):
            cells = [
                [str(row["row"]), f"{row['influence']:+.4f}", row["towards"], " ".join(row[text].split())[:_WIDTH]]
                for row in first.to_dict("records")
            ]
            display.table(f"Rows that moved {quantity}", ["row", "influence", "towards", text], cells)
        display.line(f"{len(result.left_out):,} rows are left out. To train again without them:")
        display.line(result.command)

    for result in run_attribution(options, display):
        show(result)
    display.line(how_to_open())
