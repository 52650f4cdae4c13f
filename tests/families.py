"""Tiny random models in the architectures that teams use, with the embedded tokenizer: shared by tests and docs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from valuedrift_mlflow import models

_SIZES: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_HEADS = {**_SIZES, "head_dim": 8}
_OLD = {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}
# The settings of each architecture, by transformers' name of it.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": _HEADS,
    "mistral": _HEADS,
    "gemma": _HEADS,
    "gemma2": {**_HEADS, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_HEADS, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "phi": _SIZES,
    "phi3": _SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},
    "gpt_neox": _OLD,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 1024,
    },
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 1024},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 1024,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 1024},
    "falcon": {**_OLD, "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "alibi": False},
    "stablelm": _SIZES,
    "starcoder2": _SIZES,
    "olmo": _SIZES,
    "olmo2": _SIZES,
    "cohere": _SIZES,
    "cohere2": {**_HEADS, "sliding_window": 64},
    "granite": _SIZES,
    "smollm3": _SIZES,
    "mixtral": {**_SIZES, "num_local_experts": 4},
    "qwen2_moe": {**_SIZES, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**_HEADS, **_EXPERTS},
    "olmoe": {**_SIZES, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
    "mamba": {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2},
    "mamba2": {
        "hidden_size": 32,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 8,
        "num_hidden_layers": 2,
        "n_groups": 1,
    },
}


def make(family: str, tokenizer_folder: Path, folder: Path) -> Path:
    """Save a random model of a family and the tokenizer in a folder, as transformers does; its weights are uneven.

    Random weights as they are initialised give almost the same logits for every text; these are enlarged.
    """
    tokenizer = models.load_tokenizer(str(tokenizer_folder))
    ends = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **FAMILIES[family], **ends)
    torch.manual_seed(0)
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# A model whose own code says when it is imported; it is a Llama that calls itself otherwise.
_OWN_CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path({ran!r}).touch()


class MineConfig(LlamaConfig):
    model_type = "mine"


class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


def with_own_code(llama: Path, folder: Path, ran: Path) -> Path:
    """Save the Llama of a folder in another one as a model with code of its own, which makes the file ``ran``."""
    shutil.copytree(llama, folder)
    told = json.loads((folder / "config.json").read_text())
    told |= {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"},
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "mine.py").write_text(_OWN_CODE.format(ran=str(ran)))
    return folder
