"""What tells one model in memory from another: a digest of all that decides what it answers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CHANGES_NOTHING = ("_name_or_path", "transformers_version", "architectures")  # of a configuration
_STATE = ("padding", "truncation")  # of a tokenizer: how it was last called


def model_digest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bytes | None:
    """BLAKE2 over weights, configuration and tokenizer; None where they are not all that decides.

    That is so of code that is not of transformers, of adapters (they may be off), of hooks and replaced methods, of
    weights that are elsewhere, and of tokenizers without a description of their own.
    """
    described = _tokenizer(tokenizer)
    weights = model.state_dict()
    if described is None or not _is_plain(model) or not all(map(_is_here, weights.values())):
        return None
    digest = hashlib.blake2b(digest_size=32)
    for part in (type(model).__qualname__, _config(model), described):
        digest.update(f"{len(part)}\x1f{part}".encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name}\x1f{weight.dtype}\x1f{tuple(weight.shape)}\x1f".encode())
        digest.update(_raw(weight))
    return digest.digest()


def _is_plain(model: nn.Module) -> bool:
    """Whether a model is transformers' own, as its class has it."""
    return (
        type(model).__module__.partition(".")[0] == "transformers"
        and getattr(model, "peft_config", None) is None
        and not any(
            part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in model.modules()
        )
    )


def _is_here(weight: object) -> bool:
    import torch

    return isinstance(weight, torch.Tensor) and not weight.is_meta


def _config(model: PreTrainedModel) -> str:
    told = json.loads(model.config.to_json_string(use_diff=False))
    for name in _CHANGES_NOTHING:
        told.pop(name, None)
    return json.dumps([told, getattr(model.config, "_attn_implementation", None)], sort_keys=True)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    told = json.loads(backend.to_str())
    for name in _STATE:
        told.pop(name, None)
    # Which tokens are special decides what decoding leaves out.
    return json.dumps([told, tokenizer.all_special_ids, tokenizer.pad_token_id], sort_keys=True, default=str)


def _raw(weight: Tensor) -> memoryview:
    import torch

    # As bytes: numpy knows no bfloat16.
    data: memoryview = weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return data
