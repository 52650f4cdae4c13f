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
    assert measured > 0.01


def test_the_reference_of_an_adapter_is_the_model_without_it(random_folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    loaded = models.load_model(str(random_folder))
    policy = get_peft_model(loaded.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    measured = reference_kl(policy, reference_of(policy), loaded.tokenizer, exchanges(loaded.tokenizer))
    assert measured > 0.001
    frozen = models.load_model(str(random_folder)).model
    assert measured == pytest.approx(
        reference_kl(policy, reference_of(frozen), loaded.tokenizer, exchanges(loaded.tokenizer)), rel=1e-4
    )
