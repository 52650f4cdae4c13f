"""The reference that a policy is held against while it trains, and what a model holds likely in responses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

# A context that turns the policy, or a frozen copy of it, into the reference for as long as it is open.
Reference = Callable[[], "AbstractContextManager[PreTrainedModel]"]


def reference_of(model: PreTrainedModel) -> Reference:
    """The model as it is now: what trains in adapters put back or switched off, else a frozen copy of the whole.

    Switched off are adapters that change nothing yet (LoRA's begin with a matrix of zeros). Others are a part of the
    start, as in a training that goes on with its adapters: their values are kept and put in place for as long as the
    reference is asked.
    """
    # Only peft's wrapper has it: the method of transformers' own models is disable_adapters.
    if hasattr(model, "disable_adapter"):
        adapted = [weight for name, weight in model.named_parameters() if "lora_B" in name]
        if adapted and not any(bool(weight.any()) for weight in adapted):
            return lambda: _without_adapter(model)
        start = [(weight, weight.detach().clone()) for weight in model.parameters() if weight.requires_grad]
        return lambda: _put_back(model, start)
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    return lambda: nullcontext(frozen)


@contextmanager
def _put_back(model: PreTrainedModel, start: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[PreTrainedModel]:
    """The model with other values of some weights, to the last bit what it was afterwards."""
    # The tensors change places, nothing is copied: what the optimizer holds is the same as before.
    now = [weight.data for weight, _ in start]
    for weight, kept in start:
        weight.data = kept
    try:
        yield model
    finally:
        for (weight, _), value in zip(start, now, strict=True):
            weight.data = value


class _without_adapter(AbstractContextManager["PreTrainedModel"]):
    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.context = cast("PeftModel", model).disable_adapter()

    def __enter__(self) -> PreTrainedModel:
        self.context.__enter__()
        return self.model

    def __exit__(self, *exception: object) -> None:
        self.context.__exit__(*exception)


def padded(
    batch: Sequence[tuple[list[int], list[int]]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """B exchanges (ids of prompt and response), padded on the right to the longest, L.

    Returns:
        ids and attention (B, L), and ``targets`` (B, L-1): True where the next token is one of a response.
    """
    import torch

    width = max(len(prompt) + len(response) for prompt, response in batch)
    # What pads is hidden by the mask, so that any id will do, and no tokenizer is asked for one.
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    attention, answered = torch.zeros_like(ids), torch.zeros(len(batch), width, dtype=torch.bool)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        attention[row, :end] = 1
        answered[row, len(prompt) : end] = True
    return ids.to(device), attention.to(device), answered[:, 1:].to(device)


def response_log_probabilities(
    model: PreTrainedModel, ids: torch.Tensor, attention: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Next-token log-probabilities at the marks in ``targets`` (B, L-1): shape (number of marks, vocabulary)."""
    output = model(input_ids=ids, attention_mask=attention, use_cache=False)
    # Prompt tuning has virtual tokens stand before the real ones.
    logits = output.logits[:, -ids.shape[1] :]
    selected: torch.Tensor = logits[:, :-1][targets].float().log_softmax(dim=-1)
    return selected
