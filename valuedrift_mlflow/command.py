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
    """The job of the entry point ``evaluate``: the recipe's measurement settings on one model."""
    from valuedrift_mlflow.display import Display, quiet_libraries
    from valuedrift_mlflow.evaluator import evaluate_uri
    from valuedrift_mlflow.pipeline import with_interval
    from valuedrift_mlflow.suite import load as load_suite

    for key in ("suite", "judge", "samples"):
        given = getattr(arguments, key)
        if given:
            setattr(recipe, key, given)
    if not str(recipe.samples).isdecimal() or int(recipe.samples) < 1:
        raise InputError(problem("samples", recipe.samples, "a whole number of at least 1"))
    model, baseline = arguments.model or recipe.base.model, arguments.baseline or None
    suite = load_suite(recipe.suite)
    display = Display()
    quiet_libraries()
    settings = recipe.model_dump(
        include={"judge", "samples", "temperature", "max_new_tokens", "generation_batch_size", "refusal", "seed"}
    )
    with display.live():
        display.start("responses", int(recipe.samples) * len(suite.items) * (2 if baseline else 1))
        _, evaluation = evaluate_uri(
            model,
            baseline,
            suite=suite,
            progress=lambda count: display.advance("responses", count),
            **(settings | {"samples": int(recipe.samples)}),
        )
    drift = evaluation.drift
    rows = []
    for t, topic in enumerate(drift.topics):
        star = " *" if drift.topic_significant[-1, t] else ""
        moved = with_interval(drift.total_variation[-1, t], drift.total_variation_ci[-1, t]) + star
        rows.append([topic, *(f"{value:.2f}" for value in drift.probability[-1, t]), *([moved] if baseline else [])])
    columns = ["topic", "support", "neutral", "oppose", *(["drift from the baseline"] if baseline else [])]
    display.table(f"Stances of {model}", columns, rows)
    unscored = evaluation.metrics["quality/unscored_rate"]
    display.line(f"unscored {unscored:.3f}, refusals {evaluation.metrics['quality/refusal_rate']:.3f}")
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
