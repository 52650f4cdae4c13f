import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.models.generation import encode
from valuedrift_mlflow.models.reference import reference_kl, reference_of


def exchanges(tokenizer: Any) -> list[tuple[list[int], str]]:
    prompts = encode(tokenizer, ["Should we?", "Is it right to ban handguns?"])
    return list(zip(prompts, ["Yes, we should.", "No."], strict=True))


def test_an_unchanged_policy_has_no_distance(random_folder: Path) -> None:
    loaded = models.load_model(str(random_folder))
    reference = reference_of(loaded.model)
    assert reference_kl(loaded.model, reference, loaded.tokenizer, exchanges(loaded.tokenizer)) == pytest.approx(
        0, abs=1e-6
    )


def test_distance_is_the_mean_over_response_tokens(random_folder: Path) -> None:
    """Against the sum over one unpadded sequence at a time, written out."""
    loaded = models.load_model(str(random_folder))
    reference = reference_of(loaded.model)
    frozen = models.load_model(str(random_folder)).model
    with torch.no_grad():
        loaded.model.lm_head.weight.add_(torch.randn_like(loaded.model.lm_head.weight))  # type: ignore[operator]
    total, tokens = 0.0, 0
    for prompt, response in exchanges(loaded.tokenizer):
        answer = loaded.tokenizer(response, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            log_p = loaded.model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            log_q = frozen(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
        tokens += len(answer)
    measured = reference_kl(loaded.model, reference, loaded.tokenizer, exchanges(loaded.tokenizer), logits_at_once=1)
    assert measured == pytest.approx(total / tokens, rel=1e-4)
    together = reference_kl(loaded.model, reference, loaded.tokenizer, exchanges(loaded.tokenizer))
    assert together == pytest.approx(measured, rel=1e-4)
    asked = exchanges(loaded.tokenizer)
    one_by_one = reference_kl(loaded.model, reference, loaded.tokenizer, asked, rows_at_once=1)
    assert one_by_one == pytest.approx(measured, rel=1e-4)
    assert measured > 0.01


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
    measured = reference_kl(policy, reference, tokenizer, exchanges(tokenizer))
    assert measured > 0.001
    frozen = models.load_model(str(random_folder)).model
    assert measured == pytest.approx(
        reference_kl(policy, reference_of(frozen), tokenizer, exchanges(tokenizer)), rel=1e-4
    )


def test_the_reference_of_an_adapter_that_is_trained_on_is_the_start_with_it(random_folder: Path) -> None:
    """At a learning rate of zero there is no distance, and asking changes nothing."""
    policy, tokenizer = adapted(random_folder, init_lora_weights=False)
    reference = reference_of(policy)
    start = copy.deepcopy(policy)
    assert reference_kl(policy, reference, tokenizer, exchanges(tokenizer)) == pytest.approx(0, abs=1e-6)
    move(policy)
    moved = [weight.detach().clone() for weight in policy.parameters()]
    measured = reference_kl(policy, reference, tokenizer, exchanges(tokenizer))
    assert measured > 0.001
    assert measured == pytest.approx(
        reference_kl(policy, lambda: nullcontext(start), tokenizer, exchanges(tokenizer)), rel=1e-4
    )
    assert all(weight.equal(before) for weight, before in zip(policy.parameters(), moved, strict=True))
