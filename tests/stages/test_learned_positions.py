"""Models whose positions are learned read a row the same in any batch: padding takes no positions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.reference import padded, reference_of, response_log_probabilities
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job


def loaded(kind: str, folder: Path) -> Loaded:
    """A tiny model with learned positions that matter, and the embedded tokenizer."""
    tokenizer = models.load_tokenizer(str(folder))
    ends = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    torch.manual_seed(0)
    model: Any
    if kind == "gpt2":
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=512, **ends)
        model = GPT2LMHeadModel(config)
        positions = model.transformer.wpe
    else:
        sizes = {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = OPTConfig(vocab_size=len(tokenizer), word_embed_proj_dim=32, **sizes, **ends)
        model = OPTForCausalLM(config)
        positions = model.model.decoder.embed_positions
    with torch.no_grad():
        positions.weight.normal_()
    return Loaded("", model.eval(), tokenizer)


def group_trainer(algorithm: str, start: Loaded, scratch: Path, rank: int) -> Any:
    tree = {"name": algorithm, "algorithm": algorithm, "data": "embedded:pairs?size=16", "generations": 2}
    tree |= {"reward": "valuedrift_mlflow.embedded.rewards:opposes", "response_length": 8, "lora": {"rank": rank}}
    tree |= {"batch_size": 4, "max_length": 256, "max_steps": 1}
    stage = read.validate({"stages": [tree]}).stages[0]
    rows = datasets.load_data(stage.data, stage.kind)
    reward = lambda prompts, responses: torch.zeros(len(responses))  # noqa: E731
    return build_trainer(Job(stage, start.model, start.tokenizer, rows, scratch, 0, [], reward))


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize(("algorithm", "rank"), [("grpo", 0), ("rloo", 0), ("grpo", 4)])
def test_log_probabilities_do_not_depend_on_the_batch(
    random_folder: Path, tmp_path: Path, algorithm: str, rank: int, kind: str
) -> None:
    trainer = group_trainer(algorithm, loaded(kind, random_folder), tmp_path, rank)
    model = trainer.model.eval()
    short, response = [7, 8, 9], [11, 12, 13, 14]
    gap = 20
    alone = torch.tensor([short + response])
    pad = trainer.processing_class.pad_token_id
    batch = torch.tensor([[pad] * gap + short + response, list(range(5, 5 + gap + len(short))) + response])
    seen = (batch != pad).long()
    with torch.no_grad():
        [one, many] = [
            trainer._get_per_token_logps_and_entropies(model, ids, mask, len(response), batch_size=1)[0][0]
            for ids, mask in ((alone, torch.ones_like(alone)), (batch, seen))
        ]
        asked = model(input_ids=alone).logits[0, -len(response) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(many, one, atol=1e-5, rtol=1e-5)
    expected = asked.gather(1, torch.tensor(response)[:, None])[:, 0]
    torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_the_distance_from_the_start_does_not_depend_on_the_batch(random_folder: Path, kind: str) -> None:
    model = loaded(kind, random_folder).model
    exchanges = [([7, 8, 9], [11, 12]), (list(range(5, 40)), [11, 12])]
    with torch.no_grad(), reference_of(model)() as start:
        together = response_log_probabilities(start, *padded(exchanges, model.device))
        alone = [response_log_probabilities(model, *padded([one], model.device)) for one in exchanges]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
