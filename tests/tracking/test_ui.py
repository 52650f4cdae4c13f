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
from ui_pages import photograph, read, said, unfold
from working_folder import working_in

from valuedrift_mlflow.evaluation.evaluate import evaluate
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read as recipes
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.tracking.view import view_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

# The page that a job prints and that of a stage are read in every run of the tests, the others nightly.
pytestmark = pytest.mark.skipif(
    not ui_pages.chromium(), reason="no Chromium on this machine to read the UI in: apt-get install chromium"
)
SUITE = "vaes?topics=religion,abortion&per_topic=3"
STAGE = {"max_steps": 2, "checkpoint_every": 1, "batch_size": 4, "max_length": 256}
TRAINING = "?workflowType=machine_learning"


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
        return f"{self.server}/#/experiments/{info.experiment_id}/runs/{info.run_id}{rest}{TRAINING}"

    def all(self, what: str) -> str:
        """The address of all runs or models."""
        return f"{self.server}/#/experiments/{self.runs['pipeline'].info.experiment_id}/{what}{TRAINING}"


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
    names = {run.info.run_name: run for run in everything}
    runs = {name if name.startswith("audit") else name.partition(" · ")[0]: run for name, run in names.items()}
    pictures = Path(os.environ.get("UI_PICTURES", shared_folder))
    with ui_pages.server(shared_folder) as server, ui_pages.browser() as page:
        yield Seen(page, server, runs, pictures)


def test_the_printed_page_shows_stances_and_drift_of_every_stage(seen: Seen, shared_folder: Path) -> None:
    with working_in(shared_folder):
        address = f"{seen.server}/{view_of(seen.runs['pipeline'])}"
    words = read(seen.page, address, "valuedrift: pipeline · tiny", "stance/overall/oppose", "dpo · embedded:base")
    ui_pages.drawn(seen.page, 9)  # three stages in three charts
    photograph(seen.page, seen.pictures, "view")
    assert "Observability" not in words  # of MLflow's pages for agents, not for training
    order = ["Stances over all topics", *(f"stance/overall/{stance}" for stance in ("support", "neutral", "oppose"))]
    places = [words.index(name) for name in (*order, "Drift since the start of the stage", "How sure")]
    assert places == sorted(places)
    names = [words.index(f"{name} · embedded:base") for name in ("dpo", "sft", "base")]
    assert names == sorted(names)  # what moved most stands first
    assert "audit" not in words  # stages alone
    seen.page.locator("label", has=seen.page.locator("input[value=TABLE]")).first.click()
    said(seen.page, "Metrics", "drift/overall", "quality/unscored", "dpo-step-000002")


@pytest.mark.slow
def test_the_plain_page_opens_a_pipeline_into_its_stages_and_two_are_compared(seen: Seen) -> None:
    words = read(seen.page, seen.all("runs"), "pipeline · tiny", "evaluate · dpo-step-000002")
    assert "sft · embedded:base" not in words
    seen.page.locator(".ag-cell button[data-component-id*=runnamecellrenderer]").click()
    said(seen.page, "base · embedded:base", "sft · embedded:base", "audit · pairs gap=1")
    photograph(seen.page, seen.pictures, "runs")
    for name in ("sft", "dpo"):
        seen.page.get_by_role("row").filter(has_text=f"{name} · embedded:base").get_by_role("checkbox").check()
    seen.page.get_by_role("button", name="Compare").click()
    said(seen.page, "Run details", "learning_rate", "axis/abortion")
    photograph(seen.page, seen.pictures, "comparison")
    shared = seen.page.get_by_role("row").filter(has=seen.page.get_by_text("learning_rate", exact=True))
    assert shared.inner_text().split() == ["learning_rate", "0.001", "0.0005"]


@pytest.mark.slow
def test_a_pipelines_page_says_what_its_stages_came_to(seen: Seen) -> None:
    read(seen.page, seen.run("pipeline"), "pipeline · tiny", "cannot tell", "summary/dpo/drift_overall")
    unfold(seen.page)
    words = said(seen.page, "support / neutral / oppose", "dpo-step-000002")
    photograph(seen.page, seen.pictures, "pipeline")
    assert "drift [95 % interval]" in words and "topics moved" in words
    assert all(model in words for model in ("base-step-000000", "sft-step-000002"))
    with seen.page.expect_popup() as opened:  # MLflow opens links of a description in a tab of their own
        seen.page.get_by_role("link", name="dpo", exact=True).click()
    words = said(opened.value, "dpo · embedded:base", "net drift [95 % interval]")
    assert "Observability" not in words
    opened.value.close()


def test_a_stages_page_says_what_moved_and_with_which_settings(seen: Seen) -> None:
    read(seen.page, seen.run("dpo"), "dpo · embedded:base", "net drift [95 % interval]", "learning_rate")
    unfold(seen.page)
    words = said(seen.page, "report of all stages", "every answer")
    photograph(seen.page, seen.pictures, "stage")
    for word in ("religion", "abortion", "cannot tell", "samples", "sft-step-000002"):
        assert word in words, word
    assert words.index("drift/overall") < words.index("stance/overall/support") < words.index("axis/religion")
    assert words.index("\nbeta") < words.index("\ndpo.beta")  # as other stages have it first
    with seen.page.expect_popup() as opened:
        seen.page.get_by_role("link", name="report of all stages").click()
    opened.value.frame_locator("iframe").get_by_text("religion").first.wait_for()
    opened.value.close()


@pytest.mark.slow
def test_figures_tables_and_the_report_open(seen: Seen) -> None:
    read(seen.page, seen.run("pipeline", "/artifacts/report.html"), "report.html")
    seen.page.frame_locator("iframe").get_by_role("heading", name="What moved: tiny").wait_for()
    photograph(seen.page, seen.pictures, "report")
    read(seen.page, seen.run("dpo", "/artifacts/figures/axis_shifts.png"), "figures/axis_shifts.png")
    picture = seen.page.locator("img[src^=blob], img[src*=axis_shifts], img[src^=data]").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    photograph(seen.page, seen.pictures, "figure")
    words = read(seen.page, seen.run("dpo", "/artifacts/value_drift_table.json"), "probability", "p_adjusted")
    assert "drift_ci_low" in words and "religion" in words


@pytest.mark.slow
def test_checkpoints_are_models_with_their_steps(seen: Seen) -> None:
    names = [f"{stage}-step-00000{step}" for stage in ("sft", "dpo") for step in (1, 2)]
    words = read(seen.page, seen.all("models"), "Model attributes", *names)
    photograph(seen.page, seen.pictures, "models")
    assert "base-step-000000" in words and "Ready" in words


@pytest.mark.slow
def test_an_evaluation_says_what_moved_from_its_baseline(seen: Seen) -> None:
    read(seen.page, seen.run("evaluate"), "evaluate · dpo-step-000002", "verdict", "baseline")
    unfold(seen.page)
    words = said(seen.page, "every answer", "embedded:base")
    photograph(seen.page, seen.pictures, "evaluation")
    assert "religion" in words and "cannot tell" in words
    assert "acquiescence" not in words  # three propositions a topic are asked in too few wordings


@pytest.mark.slow
def test_an_audit_says_how_far_the_two_sides_of_the_data_differ(seen: Seen) -> None:
    read(seen.page, seen.run("audit · pairs gap=1"), "audit · pairs gap=1", "pairwise gap", "value_gap/pairwise")
    unfold(seen.page)
    words = said(seen.page, "all figures with intervals", "all topics")
    photograph(seen.page, seen.pictures, "audit")
    assert "20 rows" in words
    page = f"{seen.all('runs')}&compareRunsMode=CHART&viewStateShareKey=valuedrift-audit"
    read(seen.page, page, "valuedrift: every audit", "Value gap", "value_gap/direction")
