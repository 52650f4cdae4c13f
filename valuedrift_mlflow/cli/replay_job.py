"""What the command ``replay`` does with its parsed flags: what a job could not deliver goes to the tracking store."""

from __future__ import annotations

import argparse

from valuedrift_mlflow import tracking
from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.recipe.recipe import Recipe


def replay_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the command ``replay``.

    Raises:
        InputError: no such folder, or the store has refused a write in it.
    """
    folder = user_path(arguments.folder, "folder")
    if arguments.dry_run:
        print(f"Dry run of replay: {tracking.waiting(folder)} writes in {folder} would be delivered")
        return
    replayed = tracking.replay(folder)
    print(f"{folder}: {replayed.delivered} writes delivered" if replayed.delivered else f"{folder}: nothing to deliver")
    if replayed.refused:
        allowed = "what the tracking store takes"
        raise InputError([problem(str(folder), said, allowed, "all others are delivered") for said in replayed.refused])
