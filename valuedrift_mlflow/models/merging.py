"""Adapters folded into the weights that they lie on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merged(model: PreTrainedModel | PeftModel, *, copied: bool = False) -> PreTrainedModel:
    """The model with its adapters folded in (in place, or in a copy); a model without adapters as it is.

    Where the output layer has an adapter and shares its weight with the embeddings, the two are separated first: a
    merge into the shared weight would change the embeddings too.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    if not isinstance(model, PeftModel):
        return model
    if copied:
        model = copy.deepcopy(model)
    base = model.get_base_model()
    head = base.get_output_embeddings()
    if isinstance(head, BaseTunerLayer) and head.weight is base.get_input_embeddings().weight:
        head.get_base_layer().weight = nn.Parameter(head.weight.detach().clone())
        # Else the two would be tied again wherever the model is loaded.
        base.config.tie_word_embeddings = False
    folded: PreTrainedModel = model.merge_and_unload()
    return folded
