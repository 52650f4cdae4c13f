"""Mixtures of experts, and models that have dropout: what the first logged numbers are."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerBase

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=8"
ANSWERS = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=8"


@pytest.fixture(scope="module")
def tokenizer(random_folder: Path) -> PreTrainedTokenizerBase:
    return models.load_tokenizer(str(random_folder))


def mixture(tokenizer: PreTrainedTokenizerBase, **settings: Any) -> Loaded:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    config = MixtralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=4, **sizes, **ends, **settings
    )
    torch.manual_seed(0)
    return Loaded("", MixtralForCausalLM(config), tokenizer)


def with_dropout(tokenizer: PreTrainedTokenizerBase) -> Loaded:
    ends = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=512, **ends)
    assert config.resid_pdrop == 0.1
    torch.manual_seed(0)
    return Loaded("", GPT2LMHeadModel(config), tokenizer)


def lengths(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    return torch.tensor([float(len(response)) for response in responses])


def trained(loaded: Loaded, scratch: Path, algorithm: str, **settings: Any) -> Any:
    tree = {
        "name": algorithm,
        "algorithm": algorithm,
        "data": ANSWERS if algorithm == "sft" else PAIRS,
        "batch_size": 4,
        "max_length": 256,
        "max_steps": 1,
    }
    if algorithm in ("grpo", "rloo"):
        tree |= {"reward": "a:b", "generations": 2, "response_length": 8}
    stage = read.validate({"stages": [tree | settings]}).stages[0]
    data = datasets.load_data(Data(uri=str(tree["data"])), stage.kind, algorithm)
    held_out = None if stage.eval_data is None else datasets.load_data(stage.eval_data, stage.kind, algorithm)
    reward: Any = lengths if algorithm in ("grpo", "rloo") else None
    trainer: Any = build_trainer(
        Job(stage, loaded.model, loaded.tokenizer, data, scratch, 0, (), reward, eval_data=held_out)
    )
    trainer.train()
    return trainer


def first(trainer: Any, key: str = "loss") -> float:
    return float(next(entry[key] for entry in trainer.state.log_history if key in entry))


START = {"dpo": math.log(2), "kto": 0.5}  # all log-ratios are 0


@pytest.mark.parametrize("weight", [None, 0.5])
@pytest.mark.parametrize("algorithm", START)
def test_losses_of_mixtures_start_where_those_of_dense_models_do(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, algorithm: str, weight: float | None
) -> None:
    trainer = trained(mixture(tokenizer), tmp_path, algorithm, router_loss=weight)
    assert first(trainer) == pytest.approx(START[algorithm], abs=1e-4)
    logged = any("aux_loss" in entry for entry in trainer.state.log_history)
    assert logged is (weight is not None)


def test_the_models_own_configuration_turns_the_routers_loss_on(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    loaded = mixture(tokenizer, output_router_logits=True, router_aux_loss_coef=0.25)
    trainer = trained(loaded, tmp_path, "dpo")
    assert trainer.args.router_aux_loss_coef == 0.25
    assert first(trainer, "aux_loss") > 0
    assert first(trainer) == pytest.approx(math.log(2), abs=1e-4)


def test_the_routers_loss_trains_and_is_not_in_the_logged_loss(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    plain, balanced = (
        trained(mixture(tokenizer), tmp_path, "sft", router_loss=weight, gradient_accumulation=2, warmup_ratio=0)
        for weight in (0.0, 1.0)
    )
    assert first(balanced) == pytest.approx(first(plain), abs=1e-4)  # the last bits of 32 bits
    assert first(balanced, "grad_norm") != pytest.approx(first(plain, "grad_norm"), rel=1e-3)


@pytest.mark.parametrize("algorithm", ["simpo", "orpo"])
def test_trainers_that_would_add_it_silently_do_not(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, algorithm: str
) -> None:
    plain = trained(mixture(tokenizer), tmp_path, algorithm)
    loaded = mixture(tokenizer, output_router_logits=True, router_aux_loss_coef=1.0)
    asked = trained(loaded, tmp_path, algorithm)
    assert first(asked) == pytest.approx(first(plain), abs=1e-5)
    assert loaded.model.config.output_router_logits is True


def test_a_routers_loss_needs_a_router(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dpo\.router_loss: .*the model is no mixture of experts"):
        trained(with_dropout(tokenizer), tmp_path, "dpo", router_loss=0.1)
    with pytest.raises(InputError, match=r"orpo\.router_loss: .*its trainer adds no such loss"):
        trained(with_dropout(tokenizer), tmp_path, "orpo", router_loss=0.1)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_sampling_stages_start_at_a_kl_of_0_with_a_model_that_has_dropout(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, algorithm: str
) -> None:
    trainer = trained(with_dropout(tokenizer), tmp_path, algorithm)
    assert first(trainer, "kl") == pytest.approx(0, abs=1e-5)


def test_dropout_is_honoured_where_it_is_asked_for(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    adapted = {"lora": {"rank": 4, "dropout": 0.5}, "trainer": {"disable_dropout": False}}
    assert first(trained(with_dropout(tokenizer), tmp_path, "dpo")) == pytest.approx(math.log(2), abs=1e-5)
    assert abs(first(trained(with_dropout(tokenizer), tmp_path, "dpo", **adapted)) - math.log(2)) > 1e-4


# What is held out, and turns of the assistant ------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto", "simpo", "orpo"])
def test_rows_held_out_are_evaluated_before_the_first_step_and_at_the_last(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, algorithm: str
) -> None:
    settings = {
        "eval_data": (ANSWERS if algorithm == "sft" else PAIRS) + "&seed=7",
        "trainer": {"optim": "sgd"},
        "max_steps": 2,
        "checkpoint_every": 2,
    }
    trainer = trained(mixture(tokenizer), tmp_path, algorithm, **settings)
    steps = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert steps == [0, 2]
    assert isinstance(trainer.optimizer.optimizer, torch.optim.SGD)
    if algorithm in START:
        assert first(trainer, "eval_loss") == pytest.approx(START[algorithm], abs=1e-4)
    assert len(trainer.eval_dataset) >= 8


def labels_of(loaded: Loaded, scratch: Path, **settings: Any) -> str:
    """What the first row is trained on, as text."""
    rows = [{"prompt": [said("user", "One?"), said("assistant", "First."), said("user", "Two?")]}]
    rows[0]["completion"] = [said("assistant", "Second.")]
    tree = {"name": "sft", "algorithm": "sft", "data": "x/y", "max_steps": 1} | settings
    stage = read.validate({"stages": [tree]}).stages[0]
    data = datasets.TrainingData("made", "sft", "made", rows)
    trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, scratch, 0))
    return str(loaded.tokenizer.decode([token for token in trainer.train_dataset[0]["labels"] if token != -100]))


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_answers_alone_are_trained_unless_all_is_asked_for(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    loaded = mixture(tokenizer)
    end = str(tokenizer.eos_token)
    assert labels_of(loaded, tmp_path).replace(" ", "") == f"Second.{end}"
    everything = labels_of(loaded, tmp_path, assistant_only=False)
    for words in ("One?", "First.", "Two?", "Second."):
        assert words in everything.replace(" ", "")
