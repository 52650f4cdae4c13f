import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.models.generation import encode
from valuedrift_mlflow.models.reference import reference_of
from valuedrift_mlflow.models.start import reference_kl, start_of


def exchanges(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    prompts = encode(tokenizer, ["Should we?", "Is it right to ban handguns?"])
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Yes, we should.", "No.")]
    return list(zip(prompts, said, strict=True))


def distance(policy: Any, reference: Any, tokenizer: Any) -> float:
    with reference() as start:
        held = start_of(start, exchanges(tokenizer))
    return reference_kl(policy, held)


def adapted(folder: Path, **settings: Any) -> tuple[Any, Any]:
    from peft import LoraConfig, get_peft_model

    loaded = models.load_model(str(folder))
    return get_peft_model(loaded.model, LoraConfig(r=4, target_modules="all-linear", **settings)), loaded.tokenizer


def move(policy: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))


def test_the_reference_of_a_new_adapter_is_the_model_without_it(random_folder: Path) -> None:
    policy, tokenizer = adapted(random_folder)
    reference = reference_of(policy)
    move(policy)
    measured = distance(policy, reference, tokenizer)
    assert measured > 0.001
    frozen = models.load_model(str(random_folder)).model
    assert measured == pytest.approx(distance(policy, reference_of(frozen), tokenizer), rel=1e-4)


def test_the_reference_of_an_adapter_that_is_trained_on_is_the_start_with_it(random_folder: Path) -> None:
    """At a learning rate of zero there is no distance, and asking changes nothing."""
    policy, tokenizer = adapted(random_folder, init_lora_weights=False)
    reference = reference_of(policy)
    start = copy.deepcopy(policy)
    assert distance(policy, reference, tokenizer) == pytest.approx(0, abs=1e-6)
    move(policy)
    moved = [weight.detach().clone() for weight in policy.parameters()]
    measured = distance(policy, reference, tokenizer)
    assert measured > 0.001
    assert measured == pytest.approx(distance(policy, lambda: nullcontext(start), tokenizer), rel=1e-4)
    assert all(weight.equal(before) for weight, before in zip(policy.parameters(), moved, strict=True))
