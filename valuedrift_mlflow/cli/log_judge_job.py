"""What the command ``log-judge`` does with its parsed flags."""

from __future__ import annotations

import argparse

from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.tracking import how_to_open


def log_judge_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the command ``log-judge``: a judge as a model of MLflow."""
    from valuedrift_mlflow.judges.judge import identity
    from valuedrift_mlflow.judges.packaged import prepare, run_logging
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    packing = prepare(arguments.judge, arguments.name, arguments.register)
    display = Display()
    if arguments.dry_run:
        display.line(f"Dry run of log-judge: {identity(packing.judge)} would be logged as {packing.name}; nothing was")
        return
    quiet_libraries()
    uri = run_logging(packing)
    display.line(f"{identity(packing.judge)} is the model {uri}")
    display.line(f"it scores a table: mlflow.pyfunc.load_model({uri!r}).predict(table)")
    display.line(how_to_open())
