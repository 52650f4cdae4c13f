"""Makes the pictures of README and docs from the newest main job and ablation in this folder's MLflow store.

mlflow run . --env-manager local
mlflow run . --env-manager local -e ablate -P design=algorithms
UI_PICTURES=docs pytest tests/tracking/test_ui.py
PYTHONPATH=tests python docs/make_images.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import ui_pages
from PIL import Image

from valuedrift_mlflow.tracking.view import view_of

HERE = Path(__file__).parent


def newest(role: str, also: str = "") -> mlflow.entities.Run:
    """The last finished run of a role in the store; ``also`` is a further condition."""
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`valuedrift.role` = '{role}' and attributes.status = 'FINISHED'{also}",
        output_format="list",
        max_results=1,
    )
    if not runs:
        raise SystemExit(f"no finished {role} in this folder's store: see above for the commands that make one")
    return runs[0]


def fetch(run: mlflow.entities.Run, figure: str, name: str) -> None:
    """Copy a run's figure, made small."""
    shutil.copy(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/figures/{figure}"), HERE / name)
    shrink(HERE / name, 820)


def shrink(path: Path, width: int) -> None:
    """Fewer pixels and colours: a README's picture need not be large."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    small.quantize(128).save(path, optimize=True)


def main() -> None:
    """Make ``docs/runs.png``, ``docs/overall.png`` and ``docs/ablation.png``."""
    run = newest("pipeline")
    fetch(run, "overall.png", "overall.png")
    fetch(newest("ablation", " and params.design = 'algorithms'"), "drift_by_gap.png", "ablation.png")
    with ui_pages.server(Path.cwd()) as server, ui_pages.browser(1500, 1100) as page:
        ui_pages.read(page, f"{server}/{view_of(run)}", "Stances over all topics", "stance/overall/oppose")
        ui_pages.photograph(page, HERE, "main")
    (HERE / "ui-main.png").rename(HERE / "runs.png")
    for picture in (HERE / "runs.png", *HERE.glob("ui-*.png")):
        shrink(picture, 1100)


if __name__ == "__main__":
    main()
