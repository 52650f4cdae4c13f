"""Architectures that teams use: loaded, asked in any batch, trained, saved and loaded again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, make

from valuedrift_mlflow import models, suite
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.judges.likelihood import LikelihoodJudge
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.models.reloads import Reloads
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

PROMPTS = ["Should we?", "Is it right to ban handguns in every city of the country?"]
RECURRENT = ("mamba", "mamba2")  # PEFT refuses adapters on some of their layers
QUICK = ("llama", "gpt2", "qwen3_moe")  # the others train in the nightly run


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name == "mamba2" else ()) for name in FAMILIES]
)
def test_what_a_model_says_and_chooses_does_not_depend_on_the_batch(
    family: str, random_folder: Path, tmp_path: Path
) -> None:
    """Nor on who speaks beside it: in two slots rows come and go, in six all speak together."""
    loaded = models.load_model(str(make(family, random_folder, tmp_path)))
    vocabulary = loaded.model.config.get_text_config().vocab_size
    loaded.model.generation_config.eos_token_id = list(range(0, vocabulary, 4))  # some end soon, some late
    generator, sampling = loaded.generator(), Sampling(3, 0.7, 8)
    together = generator.generate(PROMPTS, PROMPTS, sampling, lambda _: None)
    assert len({len(said) for row in together for said in row}) > 1
    assert generator.generate(PROMPTS, PROMPTS, replace(sampling, batch_size=2), lambda _: None) == together
    assert [generator.generate([one], [one], sampling, lambda _: None)[0] for one in PROMPTS] == together
    items, judge = suite.load("vaes?topics=religion&per_topic=2").items, LikelihoodJudge()
    verdicts = judge.choose(loaded.model, loaded.tokenizer, items, batch_size=999)
    for item, verdict in zip(items, verdicts, strict=True):
        [alone] = judge.choose(loaded.model, loaded.tokenizer, [item], batch_size=1)
        assert alone.probabilities == pytest.approx(verdict.probabilities, abs=1e-4)


def longer(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    """A reward that needs no model."""
    return torch.tensor([float(len(response)) for response in responses])


def trained(folder: Path, scratch: Path, algorithm: str, rank: int) -> Any:
    """One step of an algorithm, and its checkpoint, which must load as what it is."""
    loaded = models.load_model(str(folder))
    loaded.model.name_or_path = str(folder)
    data = "embedded:sft?size=8" if algorithm == "sft" else "embedded:pairs?size=8"
    tree = {"name": algorithm, "algorithm": algorithm, "data": data, "batch_size": 4, "max_length": 256}
    if algorithm in ("ppo", "grpo"):
        tree |= {"reward": "valuedrift_mlflow.embedded.rewards:opposes", "response_length": 8}
        tree |= {"generations": 2} if algorithm == "grpo" else {}
    tree |= {"max_steps": 1, "learning_rate": 1e-3, "warmup_ratio": 0.0, "lora": {"rank": rank}}
    tree["lora"] |= {"target_modules": ["in_proj"]} if loaded.model.config.model_type in RECURRENT else {}
    stage = read.validate({"stages": [tree]}).stages[0]
    rows = datasets.load_data(stage.data, stage.kind)
    job = Job(stage, loaded.model, loaded.tokenizer, rows, scratch / "state", 0, reward=longer)
    trainer: Any = build_trainer(job)
    trainer.train()
    model = trainer.model.policy if algorithm == "ppo" else trainer.model
    model.save_pretrained(scratch / "checkpoint")
    loaded.tokenizer.save_pretrained(scratch / "checkpoint")
    Reloads(algorithm).check(model, loaded.tokenizer, scratch / "checkpoint")
    return trainer


WAYS = {"sft": ("sft", 0), "lora": ("sft", 2), "dpo": ("dpo", 0), "ppo": ("ppo", 0), "grpo": ("grpo", 0)}


@pytest.mark.parametrize(
    ("family", "algorithm", "rank"),
    [
        pytest.param(
            family, *way, id=f"{name}-{family}", marks=() if family in QUICK and name != "ppo" else pytest.mark.slow
        )
        for name, way in WAYS.items()
        for family in FAMILIES
    ],
)
def test_a_model_is_trained_and_its_checkpoint_is_what_was_trained(
    family: str, random_folder: Path, tmp_path: Path, algorithm: str, rank: int
) -> None:
    folder = make(family, random_folder, tmp_path / "start")
    trainer = trained(folder, tmp_path, algorithm, rank)
    assert trainer.state.global_step == 1
    if algorithm == "dpo" and not trainer.aux_loss_enabled:  # the loss of a router is added
        assert trainer.state.log_history[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
