"""Where an answer ends, and by which settings it is sampled: one rule for measurements, rollouts and logged models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# What stands for an answer while a chat template shows what it puts after one.
_ANSWER = "valuedrift"
_LEFT = ("generation_config", "prepare_inputs_for_generation")


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the chat template puts right after an assistant's turn; None where that is no token of its own.

    It need not be the tokenizer's end of text: Qwen's base models end a turn with ``<|im_end|>``, texts with
    ``<|endoftext|>``.
    """
    if tokenizer.chat_template is None:
        return None
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, TypeError, ValueError):  # a template that asks for more than a question and its answer
        return None
    after = text.rpartition(_ANSWER)[2].lstrip()
    ids = list(tokenizer(after, add_special_tokens=False)["input_ids"]) if after else []
    # An ordinary token, such as a line break, also stands inside answers and can end none.
    return int(ids[0]) if ids and int(ids[0]) in tokenizer.added_tokens_decoder else None


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> list[int]:
    """The ids that end an answer, sorted.

    The union of what the model's generation config, the tokenizer and the chat template say, and of those of the texts
    ``stop`` that are one token: a model may end its turns with any of them, and what runs on after one is no part of
    the answer. Empty where none says anything.
    """
    return known_ends(model.generation_config, tokenizer, stop)


def known_ends(
    config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()
) -> list[int]:
    """As ``end_tokens``, of a generation config without its model."""
    own = None if config is None else config.eos_token_id
    ends = set(own) if isinstance(own, list | tuple) else {own}
    ends |= {tokenizer.eos_token_id, turn_end(tokenizer), *(stop_token(tokenizer, text) for text in stop)}
    return sorted(int(end) for end in ends if end is not None)


def stop_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The token that a text of ``stop`` names; None where it is plain text."""
    return next((token for token, added in tokenizer.added_tokens_decoder.items() if str(added) == text), None)


def align(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
    """Let a model that is trained or logged, and its tokenizer, say themselves what ends an answer.

    The generation config gets all of ``end_tokens``: who loads the model without this package stops there too. The
    tokenizer's end becomes the end of a turn, which is what trainers put after an answer and look for in a rollout.
    """
    ends = end_tokens(model, tokenizer, stop)
    if model.generation_config is not None and ends:
        model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    end = turn_end(tokenizer)
    if end is not None and end != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)


def pad_token(tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> int:
    """The id that pads: the tokenizer's, else one that ends an answer."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else (ends or [0])[0]


@contextmanager
def only_these_settings(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Generate by these settings alone, also below an adapter.

    transformers fills in from the model's own generation config whatever the given one leaves open; a repetition
    penalty or beams there would make another measurement of a model that has the same weights.
    """
    from peft import PeftModel

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    # PEFT leaves attributes of its own on what it wraps when it generates.
    touched = [model, model.base_model, inner, *inner.children()] if isinstance(model, PeftModel) else [inner]
    before = [(vars(part), {name: vars(part)[name] for name in _LEFT if name in vars(part)}) for part in touched]
    inner.generation_config = settings
    try:
        yield
    finally:
        for attributes, own in before:
            for name in _LEFT:
                attributes.pop(name, None)
            attributes.update(own)
