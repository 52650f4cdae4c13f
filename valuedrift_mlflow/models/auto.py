"""What transformers' Auto classes load, with types: most of their own methods carry none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def source(name: str) -> str:
    """What the Auto classes load for a name: the folder that it names, else a hub id."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def causal_lm(source: str) -> PreTrainedModel:
    """The language model in a folder or of a hub id, in the precision of its weights."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype="auto")


def classifier(source: str, device: str) -> PreTrainedModel:
    """The sequence classifier in a folder or of a hub id, in the precision of its weights, ready to be asked."""
    from transformers import AutoModelForSequenceClassification

    loaded: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(source, dtype="auto").to(device).eval()
    return loaded


def encoder(source: str, device: str) -> PreTrainedModel:
    """The model in a folder or of a hub id without a head, in float32, ready to be asked."""
    from transformers import AutoModel

    loaded: PreTrainedModel = AutoModel.from_pretrained(source).to(device).eval()
    return loaded


def tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id, for models that read and do not write: it pads on the right.

    Padding on the left, which many language models' tokenizers ask for, would shift the positions of every token by
    how long the others of a batch are: a decoder with learned positions would rate a text by its neighbours.
    """
    from transformers import AutoTokenizer

    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, padding_side="right")
    if loaded.pad_token is None:  # language models often have none, and without one no batch can be padded
        loaded.pad_token = loaded.eos_token
    return loaded


def config(source: str) -> PreTrainedConfig:
    """The configuration of the model in a folder or of a hub id; no weights are read."""
    from transformers import AutoConfig

    loaded: PreTrainedConfig = AutoConfig.from_pretrained(source)
    return loaded
