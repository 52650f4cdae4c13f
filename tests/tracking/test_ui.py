"""What people read in MLflow's UI after a pipeline, an audit and an evaluation, in a real browser on a real server.

Where `UI_PICTURES` names a folder, the pictures are left there.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ui_pages
from mlflow import MlflowClient
from mlflow.entities import Run
from ui_pages import photograph, read
from working_folder import working_in

from valuedrift_mlflow.evaluation.evaluate import evaluate
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read as recipes
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.tracking.view import view_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Slow: it drives a browser over pages that take seconds each.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ui_pages.chromium(), reason="no Chromium on this machine: apt-get install chromium"),
]
SUITE = "vaes?topics=religion,abortion&per_topic=3"
STAGE = {"max_steps": 2, "checkpoint_every": 1, "batch_size": 4, "max_length": 256}


@dataclass(frozen=True)
class Seen:
    """A server with finished runs, a browser on it, and where pictures go."""

    page: "Page"
    server: str
    runs: dict[str, Run]
    pictures: Path

    def run(self, name: str, rest: str = "") -> str:
        """The address of a run's page."""
        info = self.runs[name].info
        return f"{self.server}/#/experiments/{info.experiment_id}/runs/{info.run_id}{rest}"


@pytest.fixture(scope="module")
def seen(shared_folder: Path, base: str) -> Iterator[Seen]:
    recipe = {
        "base": {"model": base},
        "suite": SUITE,
        **{"samples": 1, "max_new_tokens": 24, "generation_batch_size": 24},
        "stages": [
            {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=20", "learning_rate": 1e-3} | STAGE,
            {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": "embedded:pairs?gap=1&size=20"}
            | {"learning_rate": 5e-4, "beta": 0.3}
            | STAGE,
        ],
    }
    with working_in(shared_folder):
        results = run_pipeline(prepare(recipes.validate(recipe), "tiny"), Display())
        evaluate(results[-1].model_uri, baseline="embedded:base", suite=SUITE, samples=1, max_new_tokens=24)
        everything = MlflowClient().search_runs([MlflowClient().get_run(results[0].run_id).info.experiment_id])
    runs = {run.info.run_name.partition(" · ")[0]: run for run in everything}
    pictures = Path(os.environ.get("UI_PICTURES", shared_folder))
    with ui_pages.server(shared_folder) as server, ui_pages.browser() as page:
        yield Seen(page, server, runs, pictures)


def test_the_printed_page_shows_stances_and_drift_of_every_stage(seen: Seen, shared_folder: Path) -> None:
    with working_in(shared_folder):
        address = f"{seen.server}/{view_of(seen.runs['pipeline'])}"
    said = read(seen.page, address, "Stances over all topics", "stance/overall/oppose")
    photograph(seen.page, seen.pictures, "view")
    assert "Model training" in said and "valuedrift: pipeline · tiny" in said
    places = [said.index(f"stance/overall/{stance}") for stance in ("support", "neutral", "oppose")]
    assert places == sorted(places) and places[-1] < said.index("Drift since the start of the stage")
    assert all(f"{name} · embedded:base" in said for name in ("base", "sft", "dpo"))
    assert "audit" not in said  # stages alone


def test_the_plain_page_opens_a_pipeline_into_its_stages(seen: Seen) -> None:
    experiment = seen.runs["pipeline"].info.experiment_id
    said = read(seen.page, f"{seen.server}/#/experiments/{experiment}/runs?workflowType=machine_learning", "pipeline")
    assert "sft · embedded:base" not in said
    seen.page.locator(".ag-cell button[data-component-id*=runnamecellrenderer]").first.click()
    for name in ("base · embedded:base", "sft · embedded:base", "audit · pairs gap=1"):
        seen.page.get_by_text(name).first.wait_for()
    photograph(seen.page, seen.pictures, "runs")


def test_a_pipelines_page_says_what_its_stages_came_to(seen: Seen) -> None:
    said = read(seen.page, seen.run("pipeline"), "support / neutral / oppose", "dpo-step-000002")
    photograph(seen.page, seen.pictures, "pipeline")
    assert "drift [95 % interval]" in said and "topics moved" in said
    assert all(model in said for model in ("base-step-000000", "sft-step-000002"))
    seen.page.get_by_role("link", name="dpo", exact=True).first.click()  # of its table
    seen.page.get_by_text("net drift [95 % interval]").first.wait_for()


def test_a_stages_page_says_what_moved_and_with_which_settings(seen: Seen) -> None:
    said = read(seen.page, seen.run("dpo"), "net drift [95 % interval]", "learning_rate")
    photograph(seen.page, seen.pictures, "stage")
    for word in ("religion", "abortion", "verdict", "every answer", "beta", "judge", "samples", "sft-step-000002"):
        assert word in said, word
    seen.page.get_by_role("link", name="report of all stages").click()
    seen.page.frame_locator("iframe").get_by_text("religion").first.wait_for()


def test_figures_tables_and_the_report_open(seen: Seen) -> None:
    read(seen.page, seen.run("pipeline", "/artifacts/report.html"), "report.html")
    seen.page.frame_locator("iframe").get_by_text("dpo").first.wait_for()
    photograph(seen.page, seen.pictures, "report")
    read(seen.page, seen.run("dpo", "/artifacts/figures/axis_shifts.png"), "axis_shifts.png")
    picture = seen.page.locator("img[src^=blob], img[src*=axis_shifts], img[src^=data]").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    photograph(seen.page, seen.pictures, "figure")
    said = read(seen.page, seen.run("dpo", "/artifacts/value_drift_table.json"), "drift_ci_low")
    assert "p_adjusted" in said


def test_checkpoints_are_models_with_their_steps(seen: Seen) -> None:
    experiment = seen.runs["pipeline"].info.experiment_id
    names = [f"{stage}-step-00000{step}" for stage in ("sft", "dpo") for step in (1, 2)]
    said = read(seen.page, f"{seen.server}/#/experiments/{experiment}/models?workflowType=machine_learning", *names)
    photograph(seen.page, seen.pictures, "models")
    assert "base-step-000000" in said


def test_an_evaluation_says_what_moved_from_its_baseline(seen: Seen) -> None:
    said = read(seen.page, seen.run("evaluate"), "drift", "every answer")
    photograph(seen.page, seen.pictures, "evaluation")
    assert "verdict" in said and "religion" in said and "embedded:base" in said


def test_a_comparison_of_two_stages_has_their_settings_side_by_side(seen: Seen) -> None:
    ids = [seen.runs[name].info.run_id for name in ("sft", "dpo")]
    chosen = ",".join(f'"{one}"' for one in ids)
    experiment = seen.runs["sft"].info.experiment_id
    address = f'{seen.server}/#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]'
    said = read(seen.page, address, "learning_rate", "drift/overall")
    photograph(seen.page, seen.pictures, "comparison")
    assert "0.001" in said and "0.0005" in said
