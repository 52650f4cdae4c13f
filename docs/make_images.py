"""Makes the pictures of README and docs from the newest main job and ablation in this folder's MLflow store.

mlflow run . --env-manager local
mlflow run . --env-manager local -e ablate -P design=algorithms
PYTHONPATH=tests python docs/make_images.py
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import ui_pages
from PIL import Image

from valuedrift_mlflow.tracking.view import view_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE = Path(__file__).parent
TRAINING = "?workflowType=machine_learning"


def newest(role: str, also: str = "") -> mlflow.entities.Run | None:
    """The last finished run of a role in the store; ``also`` is a further condition."""
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`valuedrift.role` = '{role}' and attributes.status = 'FINISHED'{also}",
        output_format="list",
        max_results=1,
    )
    return runs[0] if runs else None


def fetch(run: mlflow.entities.Run, figure: str, name: str) -> None:
    """Copy a run's figure, made small."""
    shutil.copy(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/figures/{figure}"), HERE / name)
    smaller(HERE / name, 820).quantize(128).save(HERE / name, optimize=True)


def smaller(path: Path, width: int) -> Image.Image:
    """A picture with fewer pixels: a page's need not be large."""
    with Image.open(path) as image:
        height = round(image.height * width / image.width)
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def tour(page: Page, server: str, pipeline: mlflow.entities.Run) -> Iterator[str]:
    """Open the pages that docs/ui.md walks through, one after another; gives the name of each one's picture."""
    info = pipeline.info
    runs = f"{server}/#/experiments/{info.experiment_id}/runs"
    below = f" and tags.`mlflow.parentRunId` = '{info.run_id}'"
    stage, audit = newest("stage", below), newest("audit", below)
    assert stage is not None and audit is not None  # a pipeline has made them
    ui_pages.read(page, f"{server}/{view_of(pipeline)}", "Stances over all topics", "stance/overall/oppose")
    ui_pages.said(page, str(stage.info.run_name))
    ui_pages.drawn(page, 9)  # three stages in three charts
    yield "view"
    for run, name in ((pipeline, "pipeline"), (stage, "stage"), (audit, "audit")):
        ui_pages.read(page, f"{runs}/{run.info.run_id}{TRAINING}", str(run.info.run_name), "About this run")
        ui_pages.unfold(page)
        yield name
    ui_pages.read(page, f"{runs}/{info.run_id}/artifacts/report.html{TRAINING}", "report.html")
    page.frame_locator("iframe").get_by_role("heading").first.wait_for()
    yield "report"


def main() -> None:
    """Make ``docs/ui-*.webp``, ``docs/overall.png``, and ``docs/ablation.png`` where one has run."""
    pipeline, ablation = newest("pipeline"), newest("ablation", " and params.design = 'algorithms'")
    if pipeline is None:
        raise SystemExit("no finished pipeline in this folder's store: see above for the commands that make one")
    fetch(pipeline, "overall.png", "overall.png")
    if ablation is not None:
        fetch(ablation, "drift_by_gap.png", "ablation.png")
    with ui_pages.server(Path.cwd()) as server, ui_pages.browser() as page:
        for name in tour(page, server, pipeline):
            ui_pages.photograph(page, HERE, name)
    for picture in HERE.glob("ui-*.png"):
        smaller(picture, 1200).save(picture.with_suffix(".webp"), quality=85)
        picture.unlink()


if __name__ == "__main__":
    main()
