import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands_of_users import entry_point

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline import design
from valuedrift_mlflow.pipeline.cost import ablation_lines
from valuedrift_mlflow.pipeline.dry_run import (
    DryRun,
    StagePlan,
    certainty_line,
    dry_run,
    lines_of,
    measured_line,
    read,
    rows_of,
)
from valuedrift_mlflow.recipe import read as recipes

ROOT = Path(__file__).parents[2]
# As the models' own pages state them.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama-3.1-70b": 70_553_706_496,
}
SEVEN = {
    "model": "org/seven",
    "config": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "dtype": "float16",
    },
}


def planned(*stages: dict[str, Any], **own: Any) -> DryRun:
    common = {"data": "embedded:pairs?size=100", "batch_size": 2, "max_length": 1024, "max_steps": 10}
    return dry_run(recipes.validate({"base": SEVEN} | own | {"stages": [common | stage for stage in stages]}), "own")


def stage(plan: DryRun, name: str) -> StagePlan:
    return next(entry for entry in plan.stages if entry.stage.name == name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_recipes_of_large_models_are_planned_without_the_network(name: str) -> None:
    plan = dry_run(recipes.load_recipe(name), name)
    assert plan.model is not None
    assert plan.model.parameters == PARAMETERS[name]
    for entry in plan.stages:
        assert entry.format == "not checked: hub"
        assert entry.steps and entry.tokens and entry.checkpoints and entry.disk
        assert entry.peak is not None
        assert entry.peak < 72e9  # a GPU of 80 GB, and a tenth left
    # 3 epochs of rows in steps of 128.
    rows = {52002: 3 * 407, 50000: 3 * 391}
    assert stage(plan, "sft").steps == rows[stage(plan, "sft").rows or 0]
    algorithms = [entry.stage.algorithm for entry in plan.stages]
    assert algorithms == ["sft", "dpo", "simpo"] + ([] if name == "llama-3.1-70b" else ["reward", "ppo"])


def test_the_memory_of_full_fine_tuning() -> None:
    plan = planned({"name": "dpo", "algorithm": "dpo"})
    memory = stage(plan, "dpo").memory
    # n = 2 pairs x 2 x 1024 = 4096 tokens. A layer keeps 2 n (8 x 4096 + 4 x 11008) bytes, and there are 32 of them.
    parameters = 6_738_415_616
    assert memory == {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW": 8 * parameters,
        "16-bit copies": 2 * parameters,
        "frozen copies": 4 * parameters,  # DPO's reference
        "activations": 32 * 2 * 4096 * (8 * 4096 + 4 * 11008),
        "logits": 10 * 4096 * 32000,
    }
    assert stage(plan, "dpo").disk == 10 * 4 * parameters  # the last of the ten is the stage's model


def test_the_memory_of_lora_with_recomputed_activations() -> None:
    lora = {"name": "dpo", "algorithm": "dpo", "lora": {"rank": 16}, "gradient_checkpointing": True}
    plan = planned(lora, generation_batch_size=1)
    # Rank 16 on q, k, v, o (4096 to 4096), gate and up (4096 to 11008), down: 32 x 16 x (4 x 8192 + 3 x 15104).
    adapters = 32 * 16 * (4 * 8192 + 3 * 15104)
    assert stage(plan, "dpo").memory == {
        "weights": 2 * 6_738_415_616 + 4 * adapters,
        "gradients": 4 * adapters,
        "AdamW": 8 * adapters,
        "activations": 2 * 4096 * (8 * 4096 + 4 * 11008) + 2 * 4096 * 4096 * 32,
        "logits": 10 * 4096 * 32000,
    }
    assert stage(plan, "dpo").disk == 10 * 4 * adapters + 2 * 6_738_415_616


def test_adapters_on_a_fully_tuned_start_keep_its_32_bits() -> None:
    first = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=100"}
    plan = planned(first, {"name": "dpo", "algorithm": "dpo", "from": "sft", "lora": {"rank": 16}})
    memory = stage(plan, "dpo").memory
    assert memory is not None
    assert memory["weights"] > 4 * 6_738_415_616


def test_sharding_divides_what_every_process_would_hold() -> None:
    memory = stage(dry_run(recipes.load_recipe("llama-3.1-70b"), "70b"), "sft").memory
    # Rank 64 on q and o (8192 to 8192), k and v (8192 to 1024), gate, up and down (8192 to 28672), in 80 layers.
    adapters = 80 * 64 * (2 * 16384 + 2 * 9216 + 3 * 36864)
    assert memory is not None
    assert memory["weights"] == (2 * 70_553_706_496 + 4 * adapters) / 8
    assert memory["AdamW"] == adapters
    assert memory["logits"] == 10 * 2 * 2048 * 128256  # its own rows


def test_the_responses_count_where_they_take_more_than_the_training() -> None:
    own = {"generation_batch_size": 512, "max_new_tokens": 1024}
    memory = stage(planned({"name": "dpo", "algorithm": "dpo", "lora": {"rank": 16}}, **own), "dpo").memory
    assert memory is not None
    # Keys and values of a token: 2 x 2 bytes x 32 layers x 4096.
    assert memory["responses"] > 512 * 1024 * 4 * 32 * 4096
    assert "logits" not in memory


def test_rows_steps_and_tokens_of_a_local_file(tmp_path: Path) -> None:
    short, long = ({"prompt": "a" * 199, "completion": "b" * length} for length in (200, 9800))
    rows = [short] * 30 + [long] * 10
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    own = {"name": "sft", "algorithm": "sft", "data": str(file), "max_steps": None, "epochs": 2, "max_length": 500}
    entry = stage(planned(own | {"gradient_accumulation": 2, "checkpoint_every": 8}), "sft")
    assert (entry.rows, entry.steps, entry.checkpoints) == (40, 20, 3)
    # 400 characters, 100 tokens; 10,000 characters, 2,500 tokens, cut at 500; three to one. 20 steps of 4 rows.
    assert entry.tokens == 20 * 4 * (3 * 100 + 500) / 4
    assert "4 characters a token" in entry.tokens_from


def test_tokens_are_bounded_where_the_data_is_on_the_hub() -> None:
    own = {"name": "dpo", "algorithm": "dpo", "data": {"uri": "org/pairs", "rows": 100}, "max_steps": None}
    entry = stage(planned(own), "dpo")
    assert (entry.rows, entry.steps, entry.tokens) == (100, 50, 50 * 2 * 2 * 1024)
    assert entry.tokens_from == "at most, from max_length"
    entry = stage(planned({"name": "dpo", "algorithm": "dpo", "data": "org/pairs", "max_steps": None}), "dpo")
    assert (entry.rows, entry.steps, entry.tokens, entry.disk) == (None, None, None, None)


def test_a_model_of_unknown_size_is_said_to_be() -> None:
    plan = planned({"name": "dpo", "algorithm": "dpo"}, base={"model": "org/unknown"})
    assert stage(plan, "dpo").memory is None
    assert "unknown without its configuration: give base.config" in lines_of(plan)[0]
    assert rows_of(plan)[0][-2:] == ["unknown", "unknown"]


def test_a_folder_is_sized_by_its_own_configuration(random_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    plan = planned({"name": "dpo", "algorithm": "dpo"}, base={"model": str(random_folder)})
    loaded: Any = AutoModelForCausalLM.from_pretrained(random_folder)
    assert plan.model is not None
    assert plan.model.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert "the tokenizer" in stage(plan, "dpo").tokens_from


def test_what_is_measured_is_counted() -> None:
    plan = planned(
        {"name": "a", "algorithm": "dpo", "checkpoint_every": 5},
        {"name": "reward", "algorithm": "reward"},
        suite="vaes?topics=religion&per_topic=10",
        samples=3,
        checkpoint_samples=2,
    )
    # The base, the start, step 5 and step 10: (3 + 3 + 2 + 3) responses to 10 prompts; reward models say nothing.
    assert "110 responses" in measured_line(plan, base=True)
    assert "80 responses" in measured_line(plan, base=False)
    # 10 propositions of one prompt each: of 3 samples, in one topic at two checkpoints
    found = re.search(
        r"10 propositions x 1 prompts x 3 samples .* drift of (0\.\d\d) in one topic", certainty_line(plan)
    )
    assert found and 0.3 < float(found[1]) < 0.8


def test_few_propositions_are_said_to_tell_nothing() -> None:
    plan = planned({"name": "a", "algorithm": "dpo"}, suite="vaes?topics=religion&per_topic=5")
    assert "fewer than 8 propositions are not tested" in certainty_line(plan)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"base": SEVEN | {"config": {"hidden_size": 8}}}, ["base.config", "model_type"]),
        ({"suite": "vaes?topics=cats"}, ["topics", "cats"]),
        ({"base": SEVEN | {"model": "embedded:big"}}, ["base.model", "embedded:big"]),
    ],
)
def test_a_bad_recipe_is_refused(own: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        planned({"name": "dpo", "algorithm": "dpo"}, **own)
    assert all(word in str(error.value) for word in words)


def test_adapters_need_layers_that_the_model_has() -> None:
    with pytest.raises(InputError, match=r"dpo\.lora\.target_modules.*nowhere"):
        planned({"name": "dpo", "algorithm": "dpo", "lora": {"rank": 4, "target_modules": ["nowhere"]}})


def test_an_ablation_is_counted() -> None:
    settings = recipes.load_recipe("ablate", "suite=vaes?per_topic=1 samples=2")
    plan = design.prepare(settings, "ablate", design.load_design("algorithms"), "algorithms", read)
    counted, responses, *_ = ablation_lines(plan)
    # SFT once, a reward model for each of 3 gaps x 3 seeds; 8 algorithms x 3 gaps x 3 seeds.
    assert "72 cells, 82 trainings (10 of them shared or needed by others)" in counted
    assert f"{(1 + 1 + 72) * 2 * 11:,} responses" in responses


def test_a_dry_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = entry_point("main", "--recipe", "llama-3.1-8b", "--dry-run")
    assert done.returncode == 0, done.stderr
    for words in ("8,030,261,248 parameters", "not checked: hub", "memory of each device", "at most 256 tokens"):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("evaluate", ["--dry_run", "true", "--samples", "2"], ["x 2 samples", "memory: weights 6.7 MB"]),
        ("check_judge", ["--dry-run"], ["lexical would judge"]),
        ("simpo", ["--dry-run", "yes"], ["Dry run of simpo", "1,000"]),
    ],
)
def test_entry_points_of_every_kind_have_one(name: str, arguments: list[str], words: list[str], store: Path) -> None:
    done = entry_point(name, *arguments)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words)
    assert not (store / "mlruns").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--dry-run", "perhaps"], ["dry_run", "perhaps"]), (["--dry-run", "--set", "dpo.betta=1"], ["dpo.betta"])],
)
def test_bad_input_of_a_dry_run_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = entry_point("dpo", *arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert all(word in line for word in words)
