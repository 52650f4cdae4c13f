"""The entry point ``attribute`` on real runs: a run is read, its rows are found again, what is missing is told."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands_of_users import valuedrift
from read_pages import read_page, table_of
from working_folder import working_in

from valuedrift_mlflow import attribute
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.attribute import checked, plan_lines
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.recipe.read import load_recipe
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.recipe.recorded import recorded_recipe
from valuedrift_mlflow.report.display import Display

SHARED = {"max_steps": 4, "batch_size": 4, "checkpoint_every": 2, "warmup_ratio": 0.0}


def written(rows: list[dict], file: Path) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def runs(shared_folder: Path) -> dict[str, str]:
    """A pipeline of full SFT, adapters on it, and DPO: the ids of its runs, the parent's as ``pipeline``."""
    with working_in(shared_folder):
        answers = written(corpus.rows("embedded:sft?size=21&seed=3"), shared_folder / "answers.jsonl")
        pairs = written(corpus.rows("embedded:pairs?size=16&seed=3"), shared_folder / "pairs.jsonl")
        common = {"base": {"model": "embedded:base"}, "suite": "vaes?topics=abortion,religion&per_topic=2"}
        common |= {"judge": "likelihood", "audit": False, "reference_kl": False, "seed": 5}
        sft = {"name": "answers", "algorithm": "sft", "data": answers, "learning_rate": 1e-4, **SHARED}
        lora = {**sft, "name": "adapted", "from": "answers", "learning_rate": 1e-3, "lora": {"rank": 2}}
        dpo = {"name": "dpo", "algorithm": "dpo", "from": "answers", "data": pairs, "learning_rate": 1e-4, **SHARED}
        results = run_pipeline({**common, "stages": [sft, lora, dpo]}, Display())
        from valuedrift_mlflow import tracking

        ids = {result.name: result.run_id for result in results}
        from mlflow import MlflowClient

        parent = MlflowClient().get_run(ids["answers"]).data.tags["mlflow.parentRunId"]
        assert set(tracking.stages_of(parent)) == {"base", "answers", "adapted", "dpo"}
        return {**ids, "pipeline": parent}


@pytest.fixture(scope="module")
def attributed(runs: dict[str, str], shared_folder: Path) -> dict:
    """The attribution of the whole pipeline, by stage."""
    with working_in(shared_folder):
        return {one.stage: one for one in attribute(runs["pipeline"], "abortion,axis/religion", drop=0.1)}


def test_every_stage_of_a_pipeline_is_attributed(attributed: dict) -> None:
    assert list(attributed) == ["answers", "adapted", "dpo"]
    for name, rows in (("answers", 21), ("adapted", 21), ("dpo", 16)):
        result = attributed[name]
        assert result.influences.scores.shape[:2] == (rows, 2)
        assert [one.name for one in result.found] == ["abortion", "axis/religion"]
        # Four steps of four rows, of one pass over the data.
        assert result.seen.sum() == 16 and result.seen.max() == 1


def test_rows_are_found_in_the_steps_that_they_were_in(attributed: dict) -> None:
    """The loss of the next step is had again from the rows that are said to be in it, to the last bits."""
    assert attributed["answers"].influences.order_error < 1e-5
    assert attributed["adapted"].influences.order_error < 1e-5
    assert attributed["dpo"].influences.order_error < 1e-5


def test_influences_add_up_to_the_change_where_steps_are_small(attributed: dict) -> None:
    for name in ("answers", "dpo"):
        for one in attributed[name].found:
            assert one.predicted == pytest.approx(one.change, abs=0.05 + 0.35 * abs(one.change)), (name, one)


def test_the_report_of_the_pipeline_shows_the_first_rows(
    runs: dict[str, str], attributed: dict, shared_folder: Path
) -> None:
    from mlflow import artifacts

    with working_in(shared_folder):
        page = read_page(artifacts.load_text(f"runs:/{runs['pipeline']}/report.html"))
    [cause] = page.all("section", **{"aria-labelledby": "cause"})
    told = [heading.text for heading in cause.all("h3")]
    assert told == [f"The rows that moved {name} most" for name in ("answers", "adapted", "dpo")]
    first = table_of(next(own for own in cause.all("table") if own.attributes["aria-label"] == "Rows of dpo"))[1]
    best = attributed["dpo"]
    pulled = best.influences.scores[:, 0].sum(1) * np.sign(best.found[0].change)
    assert first[:2] == ["abortion", str(best.source[pulled.argmax()] + 1)]


def test_the_run_holds_rows_figures_and_the_data_without_the_first(
    runs: dict[str, str], attributed: dict, shared_folder: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    with working_in(shared_folder):
        client = MlflowClient()
        found = client.search_runs(
            ["0", client.get_run(runs["answers"]).info.experiment_id],
            f"tags.`valuedrift.attributed_run` = '{runs['answers']}'",
        )
        run = found[-1]
        assert run.data.tags["valuedrift.role"] == "attribution"
        assert "mlflow.parentRunId" not in run.data.tags
        keys = {f"attribution/abortion/{name}" for name in ("change", "predicted", "top_1", "top_5", "concentration")}
        assert keys | {"attribution/rows_left_out", "cost/attribution_ratio"} <= set(run.data.metrics)
        folder = Path(download_artifacts(f"runs:/{run.info.run_id}/"))
        table = pd.read_parquet(folder / "influences.parquet")
        assert len(table) == 2 * 21
        own = table[table["quantity"] == "abortion"]
        assert sorted(own["rank"]) == list(range(1, 22))
        steps = [name for name in own.columns if name.startswith("step_")]
        assert np.allclose(own[steps].sum(axis=1), own["influence"])
        assert "Which rows moved" in (folder / "report.html").read_text()
        assert (folder / "figures" / "influence_shares.png").is_file()
        first = json.loads((folder / "influence_table.json").read_text())
        assert {"row", "completion", "towards"} <= set(first["columns"])
        # Two rows (10 % of 21) are left out, and the rest is read as the same rows.
        left_out = attributed["answers"].left_out.tolist()
        assert len(left_out) == 2
        again = datasets.load_data(Data(uri=str(folder / "data" / "without_top_rows.jsonl")), "sft")
        every = attributed["answers"].data.rows
        kept = [row for number, row in enumerate(every) if number not in left_out]
        assert [row["completion"] for row in again.rows] == [row["completion"] for row in kept]
        assert "--model models:/m-" in attributed["answers"].command
        # The settings of the printed command are those of the stage.
        settings = attributed["answers"].command.partition('--set "')[2].partition('"')[0]
        again = load_recipe("sft", settings)
        assert (again.stages[0].max_steps, again.stages[0].learning_rate, again.seed) == (4, 1e-4, 5)


def test_a_recipe_is_read_from_the_parameters_of_its_run() -> None:
    recipe = Recipe.model_validate(
        {
            "stop": ["</s>", "#"],
            "stages": [
                {
                    "name": "first",
                    "algorithm": "dpo",
                    "data": {"uri": "a.jsonl", "columns": {"prompt": "question"}},
                    "learning_rate": 1e-5,
                    "trainer": {"max_grad_norm": 0.5, "optim": "sgd"},
                    "lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"]},
                }
            ],
        }
    )
    assert recorded_recipe({**recipe.parameters(), "dry_run": ""}, "first") == recipe


def test_what_cannot_be_attributed_is_told_before_anything_is_computed(
    runs: dict[str, str], shared_folder: Path
) -> None:
    from valuedrift_mlflow import tracking

    with working_in(shared_folder):
        with pytest.raises(InputError, match="run: found 'nothing-like-this', allowed: the id of a run"):
            attribute("nothing-like-this")
        with pytest.raises(InputError, match=r"run: found '.* \(the base model\)', allowed: a run of a trained stage"):
            attribute(runs["base"])
        with pytest.raises(InputError, match="stage: found 'ppo', allowed: answers, adapted, dpo"):
            attribute(runs["pipeline"], stage="ppo")
        with pytest.raises(InputError, match="topics: found 'weather', allowed: abortion, religion, axis/"):
            attribute(runs["answers"], "weather")
        with pytest.raises(InputError, match=r"bound: found 0\.1, allowed: nothing beside drop"):
            attribute(runs["answers"], drop=0.1, bound=0.1)
        parameters = {
            "grpo.algorithm": "grpo",
            "grpo.data": "embedded:sft",
            "grpo.reward": "a:b",
            "grpo.learning_rate": "1",
        }
        with tracking.run("stage", parameters=parameters) as online:
            pass
        with pytest.raises(InputError, match=r"found 'grpo \(grpo\)'.*its rows are prompts"):
            attribute(online.run_id)


def test_rows_that_have_changed_are_refused_with_the_mend(runs: dict[str, str], shared_folder: Path) -> None:
    with working_in(shared_folder):
        file = shared_folder / "answers.jsonl"
        before = file.read_text()
        file.write_text("".join(before.splitlines(keepends=True)[1:]))
        try:
            refused = valuedrift("attribute", "--run", runs["answers"], "--topics", "abortion")
        finally:
            file.write_text(before)
        assert refused.returncode == 2
        [line] = refused.stderr.strip().splitlines()
        assert "answers.data: found" in line and "the rows are not those that the stage began with" in line
        [planned] = plan_lines(checked({"run": runs["answers"], "topics": "abortion"}))
        assert planned.startswith("answers: 21 rows of ") and planned.endswith("at the steps 0, 2, 4 of 4")
