import json
import re
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from read_pages import described

from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.evaluation import callback
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.ablation import CellsFailed, run_ablation
from valuedrift_mlflow.pipeline.ablation_certainty import detectable_line
from valuedrift_mlflow.pipeline.ablation_summary import Dose, Row, crossed, over_seeds, summarise
from valuedrift_mlflow.pipeline.design import Cell, Design, Training, load_design, prepare
from valuedrift_mlflow.pipeline.plan import stage_data
from valuedrift_mlflow.recipe import read, recipe
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.stage import Stage

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=20"
SFT = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=20"}


def tiny(*stages: dict[str, Any], **own: Any) -> recipe.Recipe:
    """A recipe that takes seconds: eight prompts, one step a stage."""
    common = {"max_steps": 1, "batch_size": 4, "max_length": 256, "learning_rate": 1e-3}
    tree: dict[str, Any] = {"suite": "vaes?topics=religion,abortion&per_topic=4", "samples": 1, "max_new_tokens": 40}
    tree["reference_kl"] = False
    return read.validate(tree | own | {"stages": [common | stage for stage in stages]})


def preference(name: str, algorithm: str = "dpo", **settings: Any) -> dict[str, Any]:
    return {"name": name, "algorithm": algorithm, "from": "sft", "data": PAIRS, **settings}


def prepared(settings: recipe.Recipe, **design: Any) -> list[Cell]:
    return prepare(settings, "tiny", Design(**design), "own").cells


def trainings(cells: list[Cell]) -> dict[str, Training]:
    found: dict[str, Training] = {}

    def add(training: Training | None) -> None:
        if training is not None:
            add(training.start)
            add(training.reward)
            assert found.setdefault(training.name, training) is training  # one name, one training
            read.validate(training.plan.recipe.model_dump(by_alias=True))  # other processes read it from there

    for cell in cells:
        add(cell.training)
    return found


# Designs and cells ---------------------------------------------------------------------------------------------------


def test_every_dose_and_seed_of_every_algorithm_starts_from_one_sft_checkpoint() -> None:
    cells = prepared(tiny(SFT, preference("dpo"), preference("simpo", "simpo")), axes={"data?gap": [0, 0.5, 1]})
    assert len(cells) == 2 * 3 * 3
    found = trainings(cells)
    assert len(found) == 1 + 18
    assert all(cell.training.start is found["sft"] for cell in cells)
    [cell] = [cell for cell in cells if cell.name == "simpo, gap 0.5, seed 2"]
    assert cell.training.name == "simpo-gap0-5-seed2"
    assert cell.training.stage.data.uri == "embedded:pairs?gap=0.5&chosen=oppose&rejected=support&size=20"
    assert (cell.training.stage.seed, cell.training.plan.recipe.seed) == (2, 2)
    assert found["sft"].plan.recipe.seed == 0


def test_the_algorithms_see_identical_pairs_at_every_gap() -> None:
    cells = prepared(tiny(SFT, preference("dpo"), preference("simpo", "simpo")), axes={"data?gap": [0, 1]})
    pairs = {(cell.doses[0].label, cell.training.plan.data[cell.training.name].digest()) for cell in cells}
    assert len(pairs) == 2


def test_a_reward_model_is_trained_for_every_gap_and_seed_and_shared_by_those_who_ask_it() -> None:
    stages = [SFT, preference("reward", "reward"), preference("dpo")]
    stages += [preference(name, name, reward="reward", batch_size=8) for name in ("ppo", "rloo")]
    cells = prepared(tiny(*stages), axes={"data?gap": [0, 1]}, seeds=[0, 1])
    assert {cell.series for cell in cells} == {"dpo", "ppo", "rloo"}
    rewards = {name: training for name, training in trainings(cells).items() if name.startswith("reward")}
    assert set(rewards) == {f"reward-gap{gap}-seed{seed}" for gap in (0, 1) for seed in (0, 1)}
    for cell in cells:
        if cell.series != "dpo":
            assert cell.training.reward is rewards[f"reward-gap{cell.doses[0].label}-seed{cell.seed}"]


def test_any_key_is_an_axis_and_what_it_does_not_touch_is_shared() -> None:
    cells = prepared(tiny(SFT, preference("a"), preference("b", beta=0.2)), axes={"a.beta": [0.1, 0.5]}, seeds=[0])
    assert set(trainings(cells)) == {"sft", "a-beta0-1-seed0", "a-beta0-5-seed0", "b-seed0"}
    cells = prepared(tiny(SFT, preference("dpo")), axes={"sft.max_steps": [1, 2], "samples": [1, 3]}, seeds=[4])
    assert len(cells) == 4
    assert [cell.training.plan.recipe.samples for cell in cells] == [1, 3, 1, 3]
    assert [cell.training.start and cell.training.start.stage.max_steps for cell in cells] == [1, 1, 2, 2]
    assert {cell.training.start and cell.training.start.stage.seed for cell in cells} == {4}


def test_each_base_model_reads_rows_by_its_own_template() -> None:
    read_for: list[tuple[str, str]] = []

    def seen(stage: Stage, base: str) -> TrainingData:
        read_for.append((stage.name, base))
        return stage_data(stage, base)

    bases = ["embedded:base", "embedded:random"]
    design = Design(axes={"base.model": bases}, seeds=[0, 1])
    prepare(tiny(SFT, preference("dpo")), "tiny", design, "own", seen)
    assert sorted(read_for) == [(name, base) for name in ("dpo", "sft") for base in bases]  # once each


def test_settings_reach_every_cell_of_an_algorithm() -> None:
    cells = prepared(read.load_recipe("ablate", "dpo.beta=0.7 kto.max_steps=3"), cells=["dpo", "kto"], seeds=[0, 1])
    assert {getattr(cell.training.stage, "beta", 0) for cell in cells if cell.series == "dpo"} == {0.7}
    assert {cell.training.stage.max_steps for cell in cells if cell.series == "kto"} == {3}


def test_stages_are_left_out_one_at_a_time_and_together() -> None:
    later = {"name": "later", "algorithm": "dpo", "from": "dpo-1", "data": PAIRS}
    cells = prepared(tiny(SFT, preference("dpo-1"), later), leave_out=True, seeds=[0])
    assert {cell.series for cell in cells} == {
        "sft → dpo-1 → later",
        *("sft → dpo-1", "sft → later", "dpo-1 → later"),
        *("sft", "dpo-1", "later"),
    }
    by_series = {cell.series: cell.training for cell in cells}
    assert by_series["later"].start is None
    assert by_series["sft → later"].start is by_series["sft"]  # a shorter cell is the start of a longer one
    assert by_series["sft → dpo-1 → later"].start is by_series["sft → dpo-1"]


def test_named_values_name_the_cells() -> None:
    values = {"style": "embedded:pairs?gap=0&size=20", "value gap": PAIRS}
    cells = prepared(tiny(SFT, preference("dpo")), axes={"data": values}, seeds=[0])
    assert [cell.name for cell in cells] == ["dpo, data style, seed 0", "dpo, data value gap, seed 0"]
    assert [cell.training.name for cell in cells] == ["dpo-data-style-seed0", "dpo-data-value-gap-seed0"]


@pytest.mark.parametrize(
    ("design", "words"),
    [
        ({"cells": ["ppo"]}, ["design.cells", "'ppo'", "sft, dpo"]),
        ({"axes": {"data?gapp": [1]}}, ["design.axes", "data?gapp"]),
        ({"axes": {"data?gap": [0, 7]}}, ["gap", "'7'", "from 0 to 1"]),
        ({"axes": {"betta": [1]}}, ["dpo.betta", "unknown key"]),
        ({"axes": {"dpo.beta": [-1, 0.1]}}, ["dpo.beta", "-1", "greater than 0"]),
        ({"axes": {"suite": ["vaes", "vaes?topics=cats"]}}, ["topics", "cats"]),
    ],
)
def test_a_design_that_does_not_fit_the_recipe_is_refused(design: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        prepared(tiny(SFT, preference("dpo")), **design)
    assert all(word in str(error.value) for word in words)


def test_an_unknown_design_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"after_sft, algorithms, beta, .*, stages, or a YAML file"):
        load_design("everything")


@pytest.mark.parametrize("name", ["algorithms", "beta", "data", "stages"])
def test_every_design_fits_the_recipe_of_the_entry_point(name: str) -> None:
    cells = prepare(read.load_recipe("ablate"), "ablate", load_design(name), name).cells
    expected = {"algorithms": 8 * 3 * 3, "beta": 3 * 3, "data": 3 * 3, "stages": (1 + 2 * 8) * 3}
    assert len(cells) == expected[name]
    assert len(trainings(cells)) < 2 * len(cells)


def test_what_a_design_can_find_is_announced_before_anything_is_trained() -> None:
    recipe = tiny(SFT, preference("dpo"), suite="vaes?topics=religion,abortion&per_topic=20", samples=3)

    def said(*seeds: int) -> str:
        design = Design(axes={"data?gap": [0, 0.5, 1]}, seeds=list(seeds))
        return detectable_line(prepare(recipe, "tiny", design, "own"))

    words = r"all 2 comparisons together: a difference of 0\.\d\d .* a rise from 0 to (0\.\d\d) over 3 doses"
    found = re.search(words, said(0, 1, 2))
    assert found
    assert 0.1 < float(found[1]) < 0.6
    assert "one seed does not tell cells from seeds" in said(0)


@pytest.mark.parametrize("values", [["embedded:pairs?gap=0&size=20", PAIRS], {"few": 0.1, "many": 1}])
def test_of_doses_that_are_words_no_rise_is_announced(values: list[object] | dict[str, object]) -> None:
    recipe = tiny(SFT, preference("dpo"), suite="vaes?topics=religion,abortion&per_topic=20", samples=3)
    key = "data" if isinstance(values, list) else "beta"
    line = detectable_line(prepare(recipe, "tiny", Design(axes={key: values}, seeds=[0, 1]), "own"))
    assert "between two cells" in line
    assert ("rise" in line) == (key == "beta")  # numbers, though they have names


# What cells come to --------------------------------------------------------------------------------------------------


def row(series: str, axis: str, dose: float, seed: int, drift: float, half: float = 0.05) -> Row:
    doses = (Dose(axis, axis, dose, f"{dose:g}"),)
    return Row(series, series, doses, seed, "", "", drift, (max(0.0, drift - half), drift + half), 0.02, 3.0, 0.0)


def by_gap(series: str, *drifts: float) -> list[Row]:
    """Three seeds, a little apart, at gap 0, 0.5 and 1."""
    return [
        row(series, "gap", gap, seed, drift + 0.01 * seed)
        for gap, drift in zip((0, 0.5, 1), drifts, strict=True)
        for seed in range(3)
    ]


def test_the_interval_over_seeds_adds_prompts_and_seeds_as_squares() -> None:
    # mean 0.4, s = 0.1, t(2, 0.975) = 4.30265: seeds 4.30265 * 0.1 / sqrt(3) = 0.248414; prompts 0.1 below, 0.2 above
    mean, low, high = over_seeds([0.3, 0.4, 0.5], [(0.2, 0.5), (0.3, 0.6), (0.4, 0.7)])
    assert mean == pytest.approx(0.4)
    assert low == pytest.approx(0.4 - (0.1**2 + 0.248414**2) ** 0.5, abs=1e-5)
    assert high == pytest.approx(0.4 + (0.2**2 + 0.248414**2) ** 0.5, abs=1e-5)


def test_one_seed_has_the_interval_over_prompts() -> None:
    assert over_seeds([0.3], [(0.2, 0.5)]) == pytest.approx((0.3, 0.2, 0.5))


def test_the_interval_covers_the_mean_over_seeds_and_prompts() -> None:
    """Planted: a drift of 0.4, seeds that differ by 0.05, prompts that shift all seeds together by 0.03."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        drifts = 0.4 + 0.03 * rng.standard_normal() + 0.05 * rng.standard_normal(3)
        _, low, high = over_seeds(drifts.tolist(), [(d - 1.96 * 0.03, d + 1.96 * 0.03) for d in drifts])
        covered.append(low <= 0.4 <= high)
    assert np.mean(covered) >= 0.94


def test_failed_cells_count_in_no_mean() -> None:
    rows = [*by_gap("dpo", 0.0, 0.2, 0.5)[:3], Row("dpo", "dpo", (Dose("gap", "gap", 0, "0"),), 3, "", "broke")]
    [summary] = summarise(rows)
    assert summary.seeds == 3
    assert summary.drift == pytest.approx(0.01)


def test_the_table_has_a_row_for_each_series_and_a_column_for_each_dose() -> None:
    one_seed = [row("dpo", "gap", gap, 0, drift) for gap, drift in ((0, 0.1), (0.5, 0.3), (1, 0.5))]
    columns, rows = crossed(summarise([*one_seed, row("simpo", "gap", 1, 0, 0.4)]))
    assert columns == ["drift [95 % interval]", "gap 0", "gap 0.5", "gap 1"]
    assert rows == [
        ["dpo", "0.100 [0.050, 0.150]", "0.300 [0.250, 0.350]", "0.500 [0.450, 0.550]"],
        ["simpo", "", "", "0.400 [0.350, 0.450]"],
    ]


# Running -------------------------------------------------------------------------------------------------------------


def runs() -> dict[str, Run]:
    experiment = mlflow.get_experiment_by_name("tests")
    return {run.info.run_name: run for run in MlflowClient().search_runs([experiment.experiment_id])}


def table(run: Run, file: str) -> list[dict[str, Any]]:
    read = json.loads(Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{file}")).read_text())
    return [dict(zip(read["columns"], values, strict=True)) for values in read["data"]]


def test_an_ablation_with_cells_that_fail(store: Path, base: str) -> None:
    wild = preference("wild", learning_rate=1e30, warmup_ratio=0.0, max_steps=2, checkpoint_every=2)
    after = preference("after", beta=0.2) | {"from": "wild"}
    design = Design(cells=["calm", "wild", "after"], axes={"data?gap": [0, 1]}, seeds=[3])
    plan = prepare(tiny(SFT, preference("calm"), wild, after), "tiny", design, "own.yaml")
    with pytest.raises(CellsFailed, match=r"4 of 6 cells failed\nwild, gap 0, seed 3: the loss is"):
        run_ablation(plan, Display())
    done = runs()
    cells = {f"{name}-gap{gap}-seed3" for name in ("calm", "wild", "after") for gap in (0, 1)}
    assert {name.partition(" · ")[0] for name in done} == {"ablation", "base", "sft", *cells}
    parent = done["ablation · own"]
    assert parent.info.status == "FAILED"
    assert "wild, gap 1, seed 3: the loss is" in parent.data.tags["mlflow.note.content"]
    for name in cells:
        run = done[f"{name} · embedded:base"]
        assert run.info.status == ("FINISHED" if name.startswith("calm") else "FAILED")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (f"gap{run.data.params['gap']}" in name, run.data.params["seed"]) == (True, "3")
        if not name.startswith("calm"):
            assert "the loss is" in run.data.tags["mlflow.note.content"]
    # The start is measured once: every cell begins with what was measured at the end of SFT.
    key = "stance/religion/support"
    for name in ("calm-gap0-seed3", "calm-gap1-seed3"):
        [first, _] = MlflowClient().get_metric_history(done[f"{name} · embedded:base"].info.run_id, key)
        assert (first.step, first.value) == (0, done["sft · embedded:base"].data.metrics[key])
    rows = table(parent, "ablation.json")
    assert [(r["series"], r["gap"], r["seed"], r["status"]) for r in rows] == [
        (series, gap, 3, "FINISHED" if series == "calm" else "FAILED")
        for gap in (0, 1)
        for series in ("calm", "wild", "after")
    ]
    for r in rows:
        run = MlflowClient().get_run(r["run_id"])
        assert run.info.run_name == f"{r['series']}-gap{r['gap']}-seed3 · embedded:base"
        if r["status"] == "FINISHED":
            assert r["drift"] == pytest.approx(run.data.metrics["drift/overall"], abs=1e-6)
            assert r["support"] + r["neutral"] + r["oppose"] == pytest.approx(1)
        else:
            assert r["drift"] is None
    summary = table(parent, "ablation_summary.json")
    assert [(entry["series"], entry["gap"], entry["seeds"]) for entry in summary] == [("calm", 0, 1), ("calm", 1, 1)]
    assert parent.data.metrics["ablation/calm/gap_1/drift"] == pytest.approx(rows[3]["drift"], abs=1e-6)
    listed = [MlflowClient().list_artifacts(parent.info.run_id, folder) for folder in (None, "figures")]
    files = {file.path for part in listed for file in part}
    tables = {f"ablation{name}.json" for name in ("", "_summary", "_directions", "_axes")}
    assert {"report.html", *tables, "figures/drift_by_gap.png", "figures/axis_shift_by_gap.png"} <= files
    [line] = [
        entry for entry in table(parent, "ablation_directions.json") if entry["direction"].startswith("Drift grows")
    ]
    assert (line["cells"], line["verdict"]) == ("calm", "cannot tell")  # one seed
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{parent.info.run_id}/report.html")).read_text()
    assert "Drift grows with the value gap." in report
    assert "4 cells failed" in report


def test_a_stopped_ablation_keeps_its_finished_cells(store: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reward model failed for want of a disk: with one, the cells that lacked it are run, the others are kept."""
    pairs = preference("calm")
    reward = pairs | {"name": "reward", "algorithm": "reward"}
    online = {"name": "rloo", "algorithm": "rloo", "reward": "reward", "generations": 2, "response_length": 8}
    rloo = {key: value for key, value in pairs.items() if key != "beta"} | online
    design = Design(cells=["calm", "rloo"], seeds=[0, 1])
    plan = prepare(tiny(SFT, pairs, reward, rloo), "tiny", design, "own.yaml")
    on_step_end = callback.TrainingLog.on_step_end

    def failing(self: Any, *arguments: Any, **named: Any) -> None:
        if self.name == "reward":
            raise OSError("no space left")
        on_step_end(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(callback.TrainingLog, "on_step_end", failing)
        with pytest.raises(CellsFailed, match="2 of 4 cells failed"):
            run_ablation(plan, Display())
    before = runs()
    parent = before["ablation · own"]
    assert "ablation/rloo/drift" not in parent.data.metrics
    with pytest.raises(InputError, match=r"seeds: found '\[0\]', allowed: \[0, 1\], as run"):
        fewer = design.model_copy(update={"seeds": [0]})
        other = prepare(tiny(SFT, pairs, reward, rloo), "tiny", fewer, "own.yaml")
        run_ablation(other, Display(), parent.info.run_id)
    rows = run_ablation(plan, Display(), parent.info.run_id)
    after = runs()
    assert after.keys() == before.keys()
    assert all(run.info.status == "FINISHED" for run in after.values())
    for name, run in before.items():
        assert after[name].info.run_id == run.info.run_id
        if run.info.status == "FINISHED":
            assert after[name].info.end_time == run.info.end_time
    assert sorted((row.series, row.seed, row.reason) for row in rows) == [
        ("calm", 0, ""),
        ("calm", 1, ""),
        ("rloo", 0, ""),
        ("rloo", 1, ""),
    ]
    again = after["ablation · own"]
    assert again.data.metrics["ablation/calm/drift"] == pytest.approx(parent.data.metrics["ablation/calm/drift"])
    assert "ablation/rloo/drift" in again.data.metrics
    note = described(again)
    assert "FAILED" not in note and "4 cells" in note and "| cells | seeds |" in note
    assert [entry["status"] for entry in table(again, "ablation.json")] == ["FINISHED"] * 4


def test_drift_of_left_out_stages_is_from_the_base(store: Path, base: str) -> None:
    plan = prepare(tiny(SFT, preference("dpo")), "tiny", Design(leave_out=True, seeds=[0]), "stages")
    rows = {row.series: row for row in run_ablation(plan, Display())}
    assert set(rows) == {"sft → dpo", "sft", "dpo"}
    longer = MlflowClient().get_run(rows["sft → dpo"].run_id)
    assert rows["sft"].drift == pytest.approx(runs()["sft-seed0 · embedded:base"].data.metrics["drift/overall"])
    assert rows["sft → dpo"].drift != pytest.approx(longer.data.metrics["drift/overall"])
    assert "ablation/sft-dpo/drift" in runs()["ablation · stages"].data.metrics
