"""The main job: base, SFT, preference stages; every checkpoint logged and measured.

mlflow run . --env-manager local
python entrypoints/main.py --recipe embedded --set "samples=2 dpo.beta=0.2"
python entrypoints/main.py --recipe embedded --resume RUN_ID
python entrypoints/main.py --recipe llama-3.1-8b --dry-run
"""

import argparse

from valuedrift_mlflow.command import RESUME_FLAG, run, show_plan
from valuedrift_mlflow.recipe import Recipe
from valuedrift_mlflow.tracking import how_to_open


def job(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Check the whole recipe, then run it."""
    from valuedrift_mlflow.display import Display
    from valuedrift_mlflow.pipeline import SUMMARY_COLUMNS, prepare, run_pipeline, summary_rows

    if arguments.dry_run:
        show_plan(recipe, arguments.recipe)
        return
    display = Display()
    results = run_pipeline(prepare(recipe, arguments.recipe), display, arguments.resume or None)
    display.table("Value drift", SUMMARY_COLUMNS, summary_rows(results))
    display.line(how_to_open())


if __name__ == "__main__":
    run("Train, checkpoint and measure a post-training pipeline.", "embedded", RESUME_FLAG, job)
