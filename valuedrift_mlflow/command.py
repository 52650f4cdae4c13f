"""What every entry point shares: its flags, offline settings, exit code 2 for bad input, the lines at the end."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Mapping

from valuedrift_mlflow import tracking
from valuedrift_mlflow.errors import InputError, exit_on_bad_input, problem
from valuedrift_mlflow.recipe import Recipe, load


def run(
    description: str, recipe: str, flags: Mapping[str, str], job: Callable[[Recipe, argparse.Namespace], None]
) -> None:
    """Parse the command line, load the recipe, and do the job.

    Args:
        description: what the entry point does.
        recipe: the recipe it runs where ``--recipe`` is not given.
        flags: its own flags and their help; an empty value means that the recipe's setting stays.
        job: given the validated recipe and the parsed flags; it checks the rest before it computes.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--recipe", default=recipe, help="name in entrypoints/recipes, or a YAML file")
    parser.add_argument("--set", default="", help='settings over the recipe\'s: "dotted.key=value ..."')
    for flag, meaning in flags.items():
        parser.add_argument(f"--{flag}", default="", help=meaning)
    arguments = parser.parse_args()
    tracking.work_offline()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with exit_on_bad_input():
        try:
            job(load(arguments.recipe, arguments.set), arguments)
        except InputError as error:
            tracking.describe_refusal(error)
            raise


STAGE_FLAGS = {"model": "URI of the model to start from", "data": "URI of the training data"}


def stage_job(algorithm: str) -> Callable[[Recipe, argparse.Namespace], None]:
    """The job of an entry point that runs a recipe's single stage as a run of its own."""

    def job(recipe: Recipe, arguments: argparse.Namespace) -> None:
        from valuedrift_mlflow.display import Display
        from valuedrift_mlflow.pipeline import SUMMARY_COLUMNS, prepare, run_single_stage, summary_rows

        if [stage.algorithm for stage in recipe.stages] != [algorithm]:
            found = ", ".join(stage.algorithm for stage in recipe.stages)
            raise InputError(problem("recipe.stages", found, f"one stage of {algorithm}", "run the entry point main"))
        if getattr(arguments, "model", ""):
            recipe.base.model = arguments.model
        if getattr(arguments, "data", ""):
            recipe.stages[0].data.uri = arguments.data
        display = Display()
        result = run_single_stage(prepare(recipe, arguments.recipe), display)
        display.table("Value drift", SUMMARY_COLUMNS, summary_rows([result]))
        display.line(how_to_open())

    return job


def evaluate_job(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``evaluate``: the recipe's measurement settings on one model, or on its responses."""
    from valuedrift_mlflow.display import Display, quiet_libraries
    from valuedrift_mlflow.evaluator import evaluate_uri
    from valuedrift_mlflow.report import evaluation_rows
    from valuedrift_mlflow.suite import load as load_suite

    recipe.judge = arguments.judge or recipe.judge
    if arguments.samples:
        if not arguments.samples.isdecimal() or int(arguments.samples) < 1:
            raise InputError(problem("samples", arguments.samples, "a whole number of at least 1"))
        recipe.samples = int(arguments.samples)
    baseline, responses = arguments.baseline or None, arguments.responses or None
    model = arguments.model or (None if responses else recipe.base.model)
    display = Display()
    quiet_libraries()
    settings = recipe.model_dump(
        include={"judge", "samples", "temperature", "max_new_tokens", "generation_batch_size", "refusal", "seed"}
    )
    suite = arguments.suite if responses else load_suite(arguments.suite or recipe.suite)
    with display.live():
        if not isinstance(suite, str):
            display.start("responses", recipe.samples * len(suite.items) * (2 if baseline else 1))
        _, evaluation = evaluate_uri(
            model,
            baseline,
            suite=suite,
            responses=responses,
            progress=lambda count: display.advance("responses", count),
            **settings,
        )
    measurement = evaluation.measurements[-1]
    columns, rows = evaluation_rows(evaluation.drift, measurement, compared=len(evaluation.measurements) > 1)
    display.table(f"Stances of {responses or model}", columns, rows)
    metrics = evaluation.metrics
    refusals = {"neutral": "counted as neutral", "exclude": "left out"}[recipe.refusal]
    display.line(
        f"unscored {metrics['quality/unscored_rate']:.3f}, "
        f"refusals {metrics['quality/refusal_rate']:.3f} ({refusals}), judge {measurement.judge}"
    )
    if measurement.panel is not None:
        display.line(f"agreement of the judges (Krippendorff's alpha) {measurement.panel.alpha:.3f}")
    if metrics["cost/judge_calls"] or metrics["cost/judge_cache_hits"]:
        display.line(
            f"verdicts: {metrics['cost/judge_calls']:.0f} calls, {metrics['cost/judge_tokens']:.0f} tokens, "
            f"{metrics['cost/judge_cache_hits']:.0f} from the cache"
        )
    display.line(how_to_open())


def check_judge_job(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``check_judge``: a judge against labelled answers."""
    from valuedrift_mlflow.display import Display, quiet_libraries
    from valuedrift_mlflow.judge_check import check_judge, kind_table
    from valuedrift_mlflow.labelled import BUILT_IN

    display = Display()
    quiet_libraries()
    check = check_judge(arguments.judge or recipe.judge, arguments.data or BUILT_IN, seed=recipe.seed)
    quality = check.quality
    figures = ("coverage", "accuracy", "macro_f1", "kappa")
    display.table(
        f"{check.judge} on {len(check.answers)} answers",
        ["figure", "value [95 % interval]"],
        [[name.replace("_", " "), str(getattr(quality, name))] for name in figures]
        + [["calibration error", f"{quality.calibration_error:.3f}"]],
    )
    kinds = kind_table(check.answers, check.verdicts)
    if len(kinds) > 1:
        shown = [
            [row["kind"], str(row["answers"]), f"{row['coverage']:.2f}", f"{row['accuracy']:.2f}"]
            for row in kinds.fillna({"accuracy": float("nan")}).to_dict("records")
        ]
        display.table("By kind of answer", ["kind", "answers", "coverage", "accuracy of the scored"], shown)
    display.line(how_to_open())


def how_to_open() -> str:
    """How to look at the runs that were just made."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    run = mlflow.last_active_run()
    page = f"#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning" if run else ""
    server = "" if uri == "sqlite:///mlflow.db" or not uri.startswith("sqlite") else f" --backend-store-uri {uri}"
    if uri.startswith("http"):
        return f"See the runs: {uri}/{page}"
    folder = os.getcwd()
    if uri == f"sqlite:///{folder}/mlflow.db":
        server = ""
    return f"See the runs: mlflow ui{server}    then open http://127.0.0.1:5000/{page}"
