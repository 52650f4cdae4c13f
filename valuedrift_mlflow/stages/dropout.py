"""Dropout off in what is compared with a frozen copy of itself: with it the two would differ from the first step."""

from __future__ import annotations

from torch import nn

# Architectures such as OPT call dropout as a function of a number that their layers keep. TRL looks for layers of
# dropout and leaves those numbers.
_NUMBERS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "attn_dropout", "layerdrop")


def without_dropout(model: nn.Module) -> None:
    """Set the numbers by which the layers of a model drop out to zero."""
    for module in model.modules():
        for name in _NUMBERS:
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
