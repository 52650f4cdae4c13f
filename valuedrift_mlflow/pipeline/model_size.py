"""How large the model of a recipe is, from its configuration alone: no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.embedded import corpus, world
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.models import files
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Model:
    """What a model's configuration tells of its size."""

    config: PretrainedConfig
    parameters: int
    bytes_each: float  # of a weight as it is loaded

    def empty(self) -> Any:
        """The model itself, without memory for its weights."""
        return _empty(self.config)

    def adapters(self, stage: Stage) -> int:
        """Parameters of a stage's adapters.

        Raises:
            InputError: the model has none of the layers that shall get one.
        """
        import torch
        from peft import get_peft_model

        try:
            with torch.device("meta"):
                adapted: Any = get_peft_model(self.empty(), stage.lora.config())
        except ValueError as error:
            where = f"{stage.name}.lora.target_modules"
            raise InputError(problem(where, stage.lora.target_modules, "layers of the model", str(error))) from None
        return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Hidden size, intermediate size, layers, vocabulary."""
        text: Any = self.config.get_text_config()
        hidden = int(text.hidden_size)
        return hidden, int(getattr(text, "intermediate_size", 4 * hidden)), text.num_hidden_layers, text.vocab_size

    @property
    def cache_of_token(self) -> int:
        """Bytes of one token's keys and values in 16 bits."""
        text: Any = self.config.get_text_config()
        heads = text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        return int(2 * 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * size)


def _empty(config: PretrainedConfig) -> Any:
    """The model without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(config)


def model_of(recipe: Recipe) -> Model | None:
    """The size of the model that a recipe starts from, None where its configuration cannot be had.

    It is the model's own ``config.json`` where that is in a folder, the tracking store or the hub's cache, else
    ``base.config``.

    Raises:
        InputError: ``base.config`` is no configuration of a causal language model.
    """
    config = _configuration(recipe.base.model)
    if config is None and recipe.base.config:
        config = _given(recipe.base.config)
    if config is None:
        return None
    import torch

    base = recipe.base
    stored = getattr(config, "dtype", None) if base.dtype == "auto" else getattr(torch, base.dtype)
    parameters = sum(weight.numel() for weight in _empty(config).parameters())
    width = 0.5 if base.quantization else torch.empty(0, dtype=stored or torch.float32).element_size()
    return Model(config, parameters, width)


def _given(settings: Mapping[str, Any]) -> PretrainedConfig:
    from transformers import AutoConfig

    known = {key: value for key, value in settings.items() if key != "model_type"}
    try:
        config: PretrainedConfig = AutoConfig.for_model(str(settings.get("model_type", "")), **known)
        _empty(config)
    except Exception as error:  # every architecture checks its configuration in its own way
        allowed = "model_type and the other keys of a transformers configuration"
        raise InputError(problem("base.config", dict(settings), allowed, one_line(error, 200))) from None
    return config


def _configuration(uri: str) -> PretrainedConfig | None:
    from transformers import AutoConfig

    if uri.startswith(corpus.PREFIX):
        return AutoConfig.for_model(
            "llama", vocab_size=world.VOCABULARY, tie_word_embeddings=False, dtype="float32", **world.ARCHITECTURE
        )
    base = files.below(files.files_of(uri))
    return files.config_of(uri) if base is None else _configuration(base)
