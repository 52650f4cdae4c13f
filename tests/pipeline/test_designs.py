from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.shipped import told_of
from valuedrift_mlflow.pipeline import dry_run
from valuedrift_mlflow.pipeline.ablation import run_all
from valuedrift_mlflow.pipeline.cost import cost, cost_lines
from valuedrift_mlflow.pipeline.design import Ablation, Design, prepare
from valuedrift_mlflow.pipeline.designs import design_names, load_design, recipe_of
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.stage import Stage

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=20"
STAGES = [
    {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=20"},
    {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": PAIRS},
    {"name": "simpo", "algorithm": "simpo", "from": "sft", "data": PAIRS},
]


def prepared(**design: Any) -> Ablation:
    common = {"max_steps": 2, "batch_size": 4}
    tree: dict[str, Any] = {"suite": "vaes?topics=religion,abortion&per_topic=4", "samples": 1}
    recipe = read.validate(tree | {"stages": [common | stage for stage in STAGES]})
    return prepare(recipe, "tiny", Design(**design), "own")


def cells(**design: Any) -> dict[str, Any]:
    return {cell.name: cell.training for cell in prepared(**design).cells}


# The designs that come with the project ------------------------------------------------------------------------------

# Trainings by hand, with three seeds (order and the like: of every stage, as each chain begins at the base model).
TRAININGS = {
    "after_sft": 3 + 2 * 9 + 9 + 9,  # sft; dpo and simpo at three gaps; a reward model and PPO at each
    "dose": 6 * 3,
    "lora": 1 + 3 * 4 * 3,
    "mix": 3 * 3,
    "mix_pairs": 1 + 2 * 2 * 3,
    "order": 3 * 7,  # sft; dpo after it, and simpo after that; dpo, sft after it; simpo after sft, and dpo after that
    "prompts": 3 * (4 + 8),
    "spillover": 1 + 11 * 3,
}


READ: dict[str, TrainingData] = {}


def read_once(stage: Stage, base: str) -> TrainingData:
    """The rows of a stage, read once for all designs: most of them share those of their recipe."""
    key = f"{base} {stage.kind} {stage.data.model_dump_json()}"
    if key not in READ:
        READ[key] = dry_run.read(stage, base)
    return READ[key]


@pytest.mark.parametrize("name", sorted(set(design_names()) - {"algorithms", "beta", "data", "stages"}))
def test_every_design_fits_its_recipe_and_says_what_it_asks(name: str) -> None:
    design = load_design(name)
    assert design.about and told_of("designs")[name] == design.about
    recipe, source = recipe_of(design, "ablate")
    ablation = prepare(recipe, source, design, name, read_once)
    assert len(ablation.trainings()) == TRAININGS.get(name, len(ablation.trainings()))
    [line] = cost_lines([ablation])
    assert ("unknown" in line) == (name in ("human_pairs", "scale"))  # which are about other models


def test_the_recipe_of_a_design_stands_in_for_the_default_alone() -> None:
    design = Design(recipe="embedded", set={"sft.max_steps": 7, "samples": 3})
    recipe, source = recipe_of(design, "ablate", "samples=2")
    assert (source, recipe.samples, recipe.stages[0].max_steps) == ("embedded", 2, 7)  # what the user sets comes last
    assert recipe_of(Design(recipe="embedded"), "axes")[1] == "axes"
    with pytest.raises(InputError, match=r"design\.set: found 'later\.beta'"):
        recipe_of(Design(set={"later.beta": 1}), "ablate")


# Axes of several keys, chains ----------------------------------------------------------------------------------------


def test_a_choice_writes_all_of_its_keys_and_names_the_cells() -> None:
    adapters = {"full": {"lora.rank": 0}, "small": {"lora.rank": 4, "learning_rate": 0.01}}
    found = cells(cells=["dpo", "simpo"], choices={"adapters": adapters}, seeds=[0])
    small = found["simpo, adapters small, seed 0"]
    assert (small.stage.lora.rank, small.stage.learning_rate, small.name) == (4, 0.01, "simpo-adapters-small-seed0")
    assert found["dpo, adapters full, seed 0"].start is small.start  # SFT is no part of it


def test_a_stage_that_is_named_gets_an_option_that_its_data_lack() -> None:
    found = cells(cells=["dpo"], axes={"dpo.data?topics": ["religion", "abortion"]}, seeds=[0])
    assert found["dpo, topics abortion, seed 0"].stage.data.uri == f"{PAIRS}&topics=abortion"
    with pytest.raises(InputError, match="gapp"):
        cells(cells=["dpo"], axes={"dpo.data?gapp": [1]})


def test_chains_begin_at_the_base_model_in_any_order_and_share_what_is_equal() -> None:
    ablation = prepared(chains=[["sft"], ["sft", "dpo"], ["dpo", "sft"], ["sft", "dpo", "simpo"]], seeds=[0, 1])
    assert ablation.from_base
    by_name = {cell.name: cell.training for cell in ablation.cells}
    assert len(ablation.trainings()) == 2 * (1 + 1 + 2 + 1)
    assert by_name["sft → dpo → simpo, seed 1"].start is by_name["sft → dpo, seed 1"]
    assert by_name["dpo → sft, seed 0"].lineage == ("dpo", "sft")
    assert by_name["dpo → sft, seed 0"].start.start is None


def test_designs_know_equal_trainings_by_what_is_trained() -> None:
    """The same SFT under other designs is one; with other data, settings or seeds it is another."""
    one, other = prepared(cells=["dpo"], seeds=[0]), prepared(cells=["simpo"], axes={"beta": [1, 2]}, seeds=[0, 1])
    starts = {own.cells[0].training.start.identity for own in (one, other)}
    assert len(starts) == 1
    assert cost([one, other]).trainings == 1 + 1 + 4
    assert cost([one, other]).steps == 2 * 6
    # 8 prompts of the base, and of each of 2 trainings at its end and at the checkpoint before it.
    assert cost([one]).responses == 8 * (1 + 2 * 2)
    changed = [{"sft.max_steps": [3]}, {"sft.data": ["embedded:sft?size=21"]}, {"samples": [2]}]
    others = {prepared(cells=["dpo"], axes=axes, seeds=[0]).cells[0].training.start.identity for axes in changed}
    assert len(others | starts) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chains: [[sft], [sft]]", ["chains", "each once"]),
        ("chains: [[]]", ["chains"]),
        ("{chains: [[sft]], cells: [dpo]}", ["chains", "cells and chains"]),
        ("{axes: {beta: [1]}, choices: {beta: {a: {beta: 2}}}}", ["beta", "different names"]),
        ("choices: {rank: {}}", ["choices.rank", "at least one"]),
        ("{axes: {beta: [0.1, 1]}, choices: {rows: {few: {dpo.beta: 5}}}}", ["dpo.beta", "choices.rows and axes.beta"]),
        ("choices: {a: {x: {beta: 1}}, b: {y: {beta: 2}}}", ["beta", "choices.a and choices.b"]),
        ("axes: {dpo.name: [a, b]}", ["dpo.name", "says what a stage is"]),
        ("{about: x, chains: []}", ["chains", "at least one list"]),
        ("", ["own.yaml", "nothing"]),
        ("{axes: {beta: [1]}, axes: {beta: [2]}}", ["own.yaml", "the key axes twice"]),
        ("axis: {}", ["axis: found {}, allowed: about, recipe, set, cells, axes, choices", "unknown key"]),
        ("axes: {beta: 0.1}", ["axes.beta: found 0.1, allowed: a valid list or a valid dictionary", "its values"]),
        ("seeds: three", ["seeds: found 'three', allowed: a valid list; seeds of training"]),
        ("seeds: [0, x]", ["seeds.1: found 'x', allowed: a valid integer"]),
        ("seeds: [0, 0]", ["seeds", "each once"]),
        ("seeds: []", ["seeds"]),
        ("axes: {beta: []}", ["axes.beta", "at least one value"]),
        ("axes: {seed: [1]}", ["seed", "under seeds"]),
        ("- 1", ["mapping"]),
        (f"axes: {{beta: {list(range(1, 2001))}}}", ["6,000 combinations", "at most 2,000"]),
    ],
)
def test_a_bad_design_file_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_design(str(file))
    [line] = error.value.problems
    assert all(word in line for word in words)


def test_a_chain_of_unknown_stages_is_one_line() -> None:
    with pytest.raises(InputError, match=r"design\.chains: found 'ppo', allowed: sft, dpo, simpo"):
        prepared(chains=[["sft", "ppo"]])


# Running -------------------------------------------------------------------------------------------------------------


def test_what_two_designs_need_is_trained_once(store: Path, base: str) -> None:
    tiny = {"suite": "vaes?topics=religion,abortion&per_topic=4", "samples": 1, "max_new_tokens": 40}
    common = {"max_steps": 1, "batch_size": 4, "max_length": 256, "learning_rate": 1e-3}
    recipe = read.validate(tiny | {"reference_kl": False, "stages": [common | stage for stage in STAGES]})
    designs = [
        Design(cells=["dpo"], leave_out=True, seeds=[0]),
        Design(chains=[["sft"], ["sft", "dpo"], ["dpo", "sft"]], seeds=[0]),
    ]
    ready = [prepare(recipe, "tiny", design, f"{number}.yaml") for number, design in enumerate(designs)]
    assert cost(ready).trainings == 4
    first, second = run_all(ready, Display())
    assert {row.reason for row in first.rows + second.rows} == {""}
    runs = MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id])
    names = sorted(run.info.run_name.partition(" · ")[0] for run in runs)
    assert names == ["ablation", "ablation", "base", "dpo-seed0", "dpo-sft-seed0", "sft-dpo-seed0", "sft-seed0"]
    assert [row.run_id for row in first.rows[:1]] == [row.run_id for row in second.rows[1:2]]  # sft → dpo
    [found] = first.topics.shares
    assert sum(found.value.values()) == pytest.approx(found.total)
    files = {file.path for run in runs for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"ablation_shares.json", "ablation_topics.json", "ablation_contrasts.json"} <= files
    parent = next(run for run in runs if run.info.run_name == "ablation · 0")
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{parent.info.run_id}/report.html")).read_text()
    assert "Share of each stage (Shapley)" in page
