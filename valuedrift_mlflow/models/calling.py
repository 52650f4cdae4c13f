"""What a model's forward pass takes, and how a model may be driven."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def learns_prompt(model: nn.Module) -> bool:
    """Whether a model has virtual tokens (or their keys and values) stand before every prompt."""
    from peft import PeftModel

    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def _inner(model: nn.Module) -> nn.Module:
    """The model below an adapter."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def takes(model: nn.Module, argument: str) -> bool:
    """Whether a model's forward pass knows an argument."""
    return argument in signature(type(_inner(model)).forward).parameters


def takes_positions(model: nn.Module) -> bool:
    """Whether a model takes position ids; recurrent ones have no positions, and prompt tuning sets its own."""
    return not learns_prompt(model) and takes(model, "position_ids")


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's weights are split over several processes (FSDP2): all of them then step together."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in model.parameters())


def check_in_step(model: nn.Module, asked: Sequence[object]) -> None:
    """Make sure that all processes a model is split over are about to ask it the same: each step needs all of them.

    Raises:
        ValueError: they ask different things, and would wait for each other without end.
    """
    if not is_sharded(model):
        return
    import torch.distributed as dist

    asked_by: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(asked_by, hashlib.sha256(repr(asked).encode()).hexdigest())
    if len(set(asked_by)) > 1:
        raise ValueError("the weights are split over processes that ask for different responses; all must ask for all")


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether several rows may go on from a model's cache of one prefix: not where layers keep a state that is none."""
    kind: Any = type(_inner(model))
    return takes_positions(model) and bool(kind._supports_default_dynamic_cache() and not kind._is_stateful)


def may_come_and_go(model: PreTrainedModel) -> bool:
    """Whether rows of a model may enter and leave while others speak: keys and values are all that is kept of one.

    Not so where layers keep another state, where virtual tokens stand in the cache before anything is asked, and where
    a model has a way of its own to prepare its steps, as code that comes with a model may.
    """
    from transformers import GenerationMixin

    from valuedrift_mlflow.models.slots import fits

    if learns_prompt(model):
        return False
    kind: Any = type(_inner(model))
    return bool(
        kind._supports_default_dynamic_cache()
        and not kind._is_stateful
        and kind.prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and kind.forward.__module__.startswith("transformers.")
        and fits(_inner(model).config)  # type: ignore[arg-type]
    )
