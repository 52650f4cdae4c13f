import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.plan import data_lines, prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages import ALGORITHMS
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.trainer_settings import TAKEN, check_adapters, check_targets, check_trainer

SAMPLING = ("grpo", "rloo", "ppo")


def stage_of(algorithm: str, **settings: Any) -> Stage:
    tree = {"name": algorithm, "algorithm": algorithm, "data": "x/y"} | settings
    if algorithm in SAMPLING:
        tree["reward"] = "module:function"
    return read.validate({"stages": [tree]}).stages[0]


def wrong(stage: Stage) -> list[str]:
    """What is said against a stage's settings of its trainer."""
    with pytest.raises(InputError) as refused:
        check_trainer(stage)
    return refused.value.problems


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_trainer_takes_fields_of_its_configuration(algorithm: str) -> None:
    check_trainer(stage_of(algorithm, trainer={"optim": "adafactor", "max_grad_norm": 0.5}))


def test_fields_of_trl_are_taken_with_their_types() -> None:
    fields = {"packing": True, "neftune_noise_alpha": 5, "lr_scheduler_kwargs": {"num_cycles": 0.3}}
    check_trainer(stage_of("sft", trainer=fields))


def test_all_problems_are_named_at_once_with_their_mend() -> None:
    lines = wrong(
        stage_of("sft", trainer={"optimizer": "adafactor", "learning_rate": 1e-3, "packing": "much", "seed": 3})
    )
    assert lines[0].startswith("sft.trainer.optimizer: found 'adafactor', allowed: a field of SFTConfig")
    assert lines[0].endswith("the nearest are optim, optim_args")
    assert lines[1].endswith("set sft.learning_rate")
    assert lines[2] == "sft.trainer.packing: found 'much', allowed: a valid boolean"
    assert lines[3].endswith("set sft.seed or the recipe's seed")
    assert len(lines) == 4


def test_values_that_the_configuration_refuses_are_named() -> None:
    [line] = wrong(stage_of("dpo", trainer={"optim": "no_such"}))
    assert "no_such is not a valid OptimizerNames" in line


def test_a_library_that_is_missing_is_named() -> None:
    [line] = wrong(stage_of("sft", trainer={"deepspeed": "zero2.json"}))
    assert line.endswith("pip install deepspeed")


def test_weights_are_not_split_by_deepspeed(tmp_path: Path) -> None:
    """Processes would each measure their own prompts, and wait for each other's forward passes without end."""
    settings = {"zero_optimization": {"stage": 3}}
    (tmp_path / "zero3.json").write_text(json.dumps(settings), encoding="utf-8")
    for given in (settings, str(tmp_path / "zero3.json")):
        [line] = wrong(stage_of("dpo", trainer={"deepspeed": given}))
        assert line.startswith("dpo.trainer.deepspeed zero_optimization.stage: found 3, allowed: 0, 1 or 2")
        assert line.endswith("set dpo.launch.sharded")
    [line] = wrong(stage_of("dpo", trainer={"deepspeed": {"zero_optimization": {"stage": 2}}}))
    assert line.endswith("pip install deepspeed")


@pytest.mark.parametrize("field", ["neftune_noise_alpha", "use_liger_kernel", "label_smoothing_factor"])
def test_ppo_refuses_what_its_own_trainer_does_not_do(field: str) -> None:
    [line] = wrong(stage_of("ppo", trainer={field: 1}))
    assert "PPO has a trainer of its own" in line


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_of_the_recipe_that_are_named_as_mends_exist(algorithm: str) -> None:
    kind = ALGORITHMS[algorithm]
    named = {
        word.partition(".")[2].strip(":,") for mend in kind.taken.values() for word in mend.split() if "STAGE" in word
    }
    shared = {word.partition(".")[2].strip(":,") for mend in TAKEN.values() for word in mend.split() if "STAGE" in word}
    assert {key.partition(".")[0] for key in named} <= set(kind.model_fields)
    assert {key.partition(".")[0] for key in shared} <= set(Stage.model_fields)


def test_a_users_algorithm_says_what_configures_it() -> None:
    class Mine(ALGORITHMS["sft"]):  # type: ignore[misc,valid-type]
        configured_by = ""

    stage = Mine.model_construct(name="mine", trainer={"optim": "adafactor"})
    [line] = wrong(stage)
    assert "configured_by" in line


def test_set_writes_them_and_runs_record_them() -> None:
    tree: dict[str, Any] = {"stages": [{"name": "sft", "algorithm": "sft", "data": "x/y"}]}
    problems = read.apply_settings(tree, "sft.trainer.optim=adafactor sft.trainer.lr_scheduler_kwargs.num_cycles=0.3")
    assert problems == []
    recipe: Recipe = read.validate(tree)
    parameters = recipe.parameters()
    assert parameters["sft.trainer.optim"] == "adafactor"
    assert parameters["sft.trainer.lr_scheduler_kwargs.num_cycles"] == "0.3"


# Schedules -----------------------------------------------------------------------------------------------------------


def test_a_schedule_without_what_it_needs_is_refused() -> None:
    with pytest.raises(InputError, match=r"set sft\.trainer\.lr_scheduler_kwargs\.min_lr"):
        stage_of("sft", schedule="cosine_with_min_lr")
    stage_of("sft", schedule="cosine_with_min_lr", trainer={"lr_scheduler_kwargs": {"min_lr": 1e-6}})


# Adapters ------------------------------------------------------------------------------------------------------------


def test_options_of_adapters_reach_peft() -> None:
    lora = {
        "rank": 4,
        "use_dora": True,
        "rslora": True,
        "modules_to_save": ["lm_head"],
        "options": {"lora_bias": False},
    }
    lora["options"] = {"rank_pattern": {"q_proj": 2}, "init_lora_weights": "gaussian"}
    stage = stage_of("sft", lora=lora)
    check_adapters(stage)
    config = stage.lora.config()
    assert config is not None
    assert (config.use_dora, config.use_rslora, config.modules_to_save) == (True, True, ["lm_head"])
    assert (config.rank_pattern, config.init_lora_weights) == ({"q_proj": 2}, "gaussian")


def test_options_of_adapters_are_checked() -> None:
    options = {"init_lora_weights": "pissa", "lora_bia": True, "r": 3, "bias": "all", "fan_in_fan_out": "yes"}
    with pytest.raises(InputError) as refused:
        check_adapters(stage_of("dpo", lora={"rank": 2, "options": options}))
    lines = refused.value.problems
    assert "is the reference" in lines[0]
    assert lines[1].endswith("the nearest are lora_bias")
    assert lines[2].endswith("set dpo.lora.rank")
    assert "is the reference" in lines[3]
    assert lines[4].endswith("allowed: a valid boolean")


@pytest.mark.parametrize("key", ["use_dora", "rslora"])
def test_settings_of_adapters_need_adapters(key: str) -> None:
    with pytest.raises(InputError, match=rf"sft\.lora\.{key}: .*set sft\.lora\.rank"):
        stage_of("sft", lora={key: True})


# Dropout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"sft", "pretrain"}))
def test_a_dropout_that_would_be_switched_off_is_refused(algorithm: str) -> None:
    lora = {"rank": 2, "dropout": 0.1}
    with pytest.raises(InputError, match=rf"{algorithm}\.lora\.dropout: found 0\.1, allowed: 0 for {algorithm}"):
        stage_of(algorithm, lora=lora)
    if algorithm != "ppo":
        check_trainer(stage_of(algorithm, lora=lora, trainer={"disable_dropout": False}))


def test_fine_tuning_keeps_its_dropout() -> None:
    config = stage_of("sft", lora={"rank": 2, "dropout": 0.1}).lora.config()
    assert config is not None and config.lora_dropout == 0.1


# vLLM ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_vllm_is_handed_on_to_trl(algorithm: str, random_folder: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    settings = {"backend": "vllm", "vllm_mode": "server", "vllm_server": "http://gpu1:8000"}
    stage: Any = stage_of(algorithm, trainer={"vllm_gpu_memory_utilization": 0.4}, **settings)
    check_trainer(stage)
    model: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace()))
    tokenizer = models.load_tokenizer(str(random_folder))
    given = stage.arguments(Job(stage, model, tokenizer, SimpleNamespace(rows=[]), tmp_path, 0))  # type: ignore[arg-type]
    assert (given["use_vllm"], given["vllm_mode"]) == (True, "server")
    assert given["vllm_server_base_url"] == "http://gpu1:8000"
    assert given["vllm_gpu_memory_utilization"] == 0.4


def test_vllm_needs_its_library_and_its_keys() -> None:
    with pytest.raises(InputError, match=r"grpo\.backend: found 'vllm'"):
        stage_of("grpo", backend="vllm").check_here()
    with pytest.raises(InputError, match=r"grpo\.vllm_server: found None, allowed: the address"):
        stage_of("grpo", backend="vllm", vllm_mode="server")
    with pytest.raises(InputError, match=r"grpo\.vllm_server: .*nothing without backend: vllm"):
        stage_of("grpo", vllm_server="http://gpu1:8000")
    with pytest.raises(InputError, match=r"grpo\.vllm_mode: .*nothing without backend: vllm"):
        stage_of("grpo", vllm_mode="server")


# Plans ---------------------------------------------------------------------------------------------------------------


def small(**settings: Any) -> Recipe:
    sft = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?support=1&neutral=0&oppose=0&size=4"} | settings
    return read.validate({"stages": [sft], "suite": "vaes?per_topic=1"})


def test_plans_find_them_together_with_what_else_is_wrong() -> None:
    with pytest.raises(InputError) as refused:
        prepare(small(trainer={"seed": 3}, eval_data="embedded:pairs?size=4"), "test")
    assert [line.split(":")[0] for line in refused.value.problems] == ["data embedded", "sft.trainer.seed"]


def test_plans_say_what_is_held_out_and_what_the_trainer_is_told() -> None:
    plan = prepare(small(eval_data="embedded:sft?size=6&seed=9", trainer={"packing": True}), "test")
    held_out = plan.held_out["sft"]
    assert held_out is not None
    said = data_lines(plan, plan.recipe.stages[0])[-1]
    assert said.startswith("eval_data embedded:sft?size=6&seed=9: recognised as messages") and "6 rows from 6" in said
    assert said.endswith(f"digest {held_out.digest()}")
    assert "sft: trainer packing=True" in plan.notes


@pytest.mark.parametrize(
    ("lora", "wrong"),
    [
        ({"target_modules": ["nope", "q_proj"]}, ["sft.lora.target_modules: found 'nope'"]),
        ({"target_modules": "layers.*nope"}, ["sft.lora.target_modules: found 'layers.*nope'"]),
        ({"target_modules": "q_proj("}, ["sft.lora.target_modules: found 'q_proj('"]),
        (
            {"target_modules": ["proj"], "modules_to_save": ["head"]},
            ["sft.lora.target_modules: found 'proj'", "sft.lora.modules_to_save: found 'head'"],
        ),
        ({"target_modules": ["q_proj", "mlp.up_proj"], "modules_to_save": ["lm_head"]}, []),
        ({"target_modules": r".*\.(q|v)_proj"}, []),
        ({}, []),
    ],
)
def test_layers_that_the_model_does_not_have_are_named_before_training(lora: dict[str, Any], wrong: list[str]) -> None:
    model = models.load_model("embedded:random").model
    stage = stage_of("sft", lora={"rank": 2} | lora)
    if not wrong:
        check_targets(stage, model)
        return
    with pytest.raises(InputError) as refused:
        check_targets(stage, model)
    assert len(refused.value.problems) == len(wrong)
    for line, begins in zip(refused.value.problems, wrong, strict=True):
        assert line.startswith(begins)
        assert "down_proj" in line  # what there is
