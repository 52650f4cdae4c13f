"""What the commands about judges do with their parsed flags: ``review``, ``check-judge`` and ``train-judge``."""

from __future__ import annotations

import argparse
import math

from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.tracking import how_to_open

QUALITIES = ("coverage", "accuracy", "macro_f1", "kappa")


def review_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the command ``review``: a sample of a run's responses for people to label."""
    from valuedrift_mlflow.evaluation.review import planned_review, write_review
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    if not arguments.n.isdecimal() or int(arguments.n) < 1:
        raise InputError(problem("n", arguments.n, "a whole number of at least 1"))
    display = Display()
    quiet_libraries()
    planned = planned_review(
        arguments.run_id, int(arguments.n), steps=arguments.steps, output=arguments.output, seed=recipe.seed
    )
    drawn = f"{len(planned.rows)} of {planned.responses:,} responses at the steps {', '.join(map(str, planned.steps))}"
    if arguments.dry_run:
        display.line(f"Dry run of review: {drawn} would be written to {planned.file}; nothing was")
        return
    reason = write_review(planned)
    display.line(f"{drawn}: fill the column label of {planned.file} with support, neutral, oppose, refusal or unscored")
    if reason is None:
        display.line(f"or answer them in the browser: the review queue {planned.queue!r} of the run's experiment")
    else:
        display.line(f"no review queue in MLflow: {reason}")
    source = f"valuedrift evaluate --responses {planned.uri}"
    display.line(f"then: {source} --labels {planned.file}" + (f"    (or {planned.run_uri})" if reason is None else ""))
    display.line(how_to_open())


def check_judge_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``check_judge``: a judge against labelled answers."""
    import pandas as pd

    from valuedrift_mlflow.evaluation.judge_check import check_judge, group_tables, prepare
    from valuedrift_mlflow.judges.labelled import BUILT_IN
    from valuedrift_mlflow.report.display import Display, quiet_libraries
    from valuedrift_mlflow.statistics.clustered import FEWEST_CLUSTERS

    display = Display()
    if arguments.dry_run:
        judge, answers = prepare(arguments.judge or recipe.judge, arguments.data or BUILT_IN)
        display.line(f"Dry run of check_judge: {judge.name} would judge {len(answers):,} answers; nothing was computed")
        return
    quiet_libraries()
    check = check_judge(arguments.judge or recipe.judge, arguments.data or BUILT_IN, seed=recipe.seed)
    quality = check.quality
    display.table(
        f"{check.judge} on {len(check.answers)} answers",
        ["figure", "value [95 % interval]"],
        [[name.replace("_", " "), str(getattr(quality, name))] for name in QUALITIES]
        + [["calibration error", f"{quality.calibration_error:.3f}"]]
        + ([["share of a true drift shown", str(check.shown.overall)]] if check.shown.known else []),
    )
    if math.isnan(quality.coverage.low):
        propositions = len({entry.answer.proposition for entry in check.answers})
        display.line(f"no intervals: {propositions} propositions, at least {FEWEST_CLUSTERS} tell how they vary")
    for name, table in group_tables(check).items():
        columns = list(table.columns)
        shown = [
            [str(group), str(count), *("" if pd.isna(value) else f"{value:.2f}" for value in values)]
            for group, count, *values in table.itertuples(index=False)
        ]
        display.table(
            f"By {name.removesuffix('s')} of answers", [*columns[:3], "accuracy of the scored", "kappa"], shown
        )
    display.line(how_to_open())


def train_judge_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``train_judge``: a stance classifier, calibrated and checked."""
    from valuedrift_mlflow.evaluation.judge_training import prepare, run_training
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    prepared = prepare(
        arguments.data, arguments.model, teacher=arguments.teacher, register=arguments.register, seed=recipe.seed
    )
    display = Display()
    if arguments.dry_run:
        source = f"as {prepared.teacher.name} reads them" if prepared.teacher is not None else "as they are labelled"
        display.line(
            f"Dry run of train_judge: {prepared.model} would learn {len(prepared.answers):,} answers of "
            f"{prepared.data} {source}; nothing was computed"
        )
        return
    quiet_libraries()
    trained = run_training(prepared)
    display.table(
        f"{trained.uri} on {len(trained.check.answers):,} answers to propositions that it has not seen",
        ["figure", "value [95 % interval]"],
        [[name.replace("_", " "), str(getattr(trained.check.quality, name))] for name in QUALITIES],
    )
    display.line(
        f"temperature {trained.temperature:.2f}, threshold {trained.threshold:.2f}; use it as judge={trained.uri}"
    )
    display.line(how_to_open())
