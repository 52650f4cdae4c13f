"""How a model is made to speak: what ends its answers, whether it thinks first, what its chat template is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.thoughts import has_mark, marks_among, opened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Argument = str | int | float | bool | None
# By which arguments chat templates let a model think or not: off, and on. Qwen, SmolLM and most others; DeepSeek and
# Granite; Seed-OSS, whose budget of -1 is none.
SWITCHES: Mapping[str, tuple[Argument, Argument]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "thinking_budget": (0, -1),
}
_QUESTION = [{"role": "user", "content": "?"}]


@dataclass(frozen=True)
class Speech:
    """How a model is made to speak, the same wherever it is asked.

    Attributes:
        stop: texts that end an answer, beside the model's own end tokens; they are no part of it.
        thinking: whether it thinks before it answers, where its chat template has a switch for that.
        max_thinking_tokens: longest thought; the answer after it has a length of its own.
        template: further arguments of the chat template.
    """

    stop: tuple[str, ...] = ()
    thinking: bool = False
    max_thinking_tokens: int = 1024
    template: Mapping[str, Argument] = field(default_factory=dict)

    def switch(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Argument]:
        """The argument that turns thinking off (or on); empty for a template without a switch."""
        return {
            name: values[self.thinking] for name, values in SWITCHES.items() if _tells_apart(tokenizer, name, values)
        }

    def arguments(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Argument]:
        """What the chat template is told; ``template`` has the last word.

        Raises:
            InputError: the template does not name an argument of ``template``, which would do nothing.
        """
        unknown = [name for name in self.template if not re.search(rf"\b{name}\b", str(tokenizer.chat_template or ""))]
        if unknown:
            allowed = "arguments that the model's chat template names"
            raise InputError(problem("template_kwargs", ", ".join(unknown), allowed, "look into its chat template"))
        return {**self.switch(tokenizer), **self.template}

    def prompt(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages as the model sees them, up to where its answer begins."""
        return self.prompts(tokenizer, [messages])[0]

    def prompts(
        self, tokenizer: PreTrainedTokenizerBase, dialogues: Iterable[Sequence[Mapping[str, str]]]
    ) -> list[str]:
        """As ``prompt``, many dialogues; what the template is told is found out once for all of them."""
        arguments = self.arguments(tokenizer)
        return [rendered(tokenizer, messages, arguments) for messages in dialogues]

    def may_think(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether a response may hold a thought: it is asked for, or the template knows the marks of one."""
        return tokenizer.chat_template is not None and (self.thinking or has_mark(str(tokenizer.chat_template)))

    def opening(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The mark with which the template itself opens the thought of every response; else empty."""
        return opened(self.prompt(tokenizer, _QUESTION)) if tokenizer.chat_template is not None else ""


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], arguments: Mapping[str, Argument]
) -> str:
    """Messages by the chat template, which is told ``arguments``, up to where an answer begins."""
    template: Callable[..., object] = tokenizer.apply_chat_template  # a template's own arguments have no types
    turns = [dict(message) for message in messages]
    return str(template(turns, tokenize=False, add_generation_prompt=True, **arguments))


def _tells_apart(tokenizer: PreTrainedTokenizerBase, name: str, values: tuple[Argument, Argument]) -> bool:
    """Whether a template shows a question otherwise by the two values of an argument."""
    if tokenizer.chat_template is None or name not in str(tokenizer.chat_template):
        return False
    from jinja2 import TemplateError

    try:
        off, on = (rendered(tokenizer, _QUESTION, {name: value}) for value in values)
    except (TemplateError, TypeError, ValueError):  # a template that asks for more than a question
        return False
    return off != on


def as_text(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """Tokens as text without special ones, except for those that mark a thought.

    Some models mark it with special tokens (``[THINK]``, ``<|channel|>``); without them a thought reads like an answer.
    """
    special = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True)
    named = marks_among(list(special.values()))
    marks = {token for token, text in special.items() if text in named}
    if not marks:
        return list(tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True))
    shown = [[token for token in row if token in marks or token not in special] for row in rows]
    return list(tokenizer.batch_decode(shown, skip_special_tokens=False))
