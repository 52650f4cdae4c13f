"""How a model is made to speak: what ends its answers, whether it thinks first, what its chat template is told.

``Speech`` decides it for all: measurements, rollouts, and the rows that a model is trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import alike
from valuedrift_mlflow.inputs.thoughts import begins, closing, has_mark, marks_among, opened
from valuedrift_mlflow.models.ending import turn_end

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
# What the template is told by whoever asks, whatever a user says.
RESERVED = ("conversation", "messages", "tools", "tokenize", "add_generation_prompt", "continue_final_message")
_QUESTION = [{"role": "user", "content": "?"}]
_ANSWER = {
    "role": "assistant",
    "content": "valuedrift",
}  # stands for an answer where a template shows what is before it


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
            InputError: the template does not know an argument of ``template``, which would do nothing.
        """
        check_arguments(self.template, tokenizer)
        return {**self.switch(tokenizer), **self.template}

    def rendering(self, tokenizer: PreTrainedTokenizerBase) -> Rendering:
        """The tokenizer's chat template with what it is told, for many dialogues.

        Raises:
            InputError: as ``arguments``.
        """
        return Rendering(tokenizer, self.arguments(tokenizer))

    def prompt(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages as the model sees them, up to where its answer begins."""
        return self.prompts(tokenizer, [messages])[0]

    def prompts(
        self, tokenizer: PreTrainedTokenizerBase, dialogues: Iterable[Sequence[Mapping[str, str]]]
    ) -> list[str]:
        """As ``prompt``, many dialogues; what the template is told is found out once for all of them."""
        rendering = self.rendering(tokenizer)
        return [rendering.prompt(messages) for messages in dialogues]

    def may_think(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether a response may hold a thought: it is asked for, or the template knows the marks of one."""
        return tokenizer.chat_template is not None and (self.thinking or has_mark(str(tokenizer.chat_template)))

    def opening(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The mark with which the template itself opens the thought of every response; else empty."""
        return opened(self.prompt(tokenizer, _QUESTION)) if tokenizer.chat_template is not None else ""


class Exchange(NamedTuple):
    """A prompt with its answer as the model sees them, one text after the other."""

    asked: str
    said: str


@dataclass(frozen=True)
class Rendering:
    """A chat template and what it is told.

    Attributes:
        tokenizer: has the template.
        arguments: of the template.
    """

    tokenizer: PreTrainedTokenizerBase
    arguments: Mapping[str, Argument]

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end a turn."""
        return frozenset(end for end in (self.tokenizer.eos_token_id, turn_end(self.tokenizer)) if end is not None)

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages up to where an answer begins."""
        return self._text(messages, ask=True)

    def dialogue(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages up to the end of the last one."""
        return self._text(messages, ask=False)

    def exchange(self, prompt: Sequence[Mapping[str, str]], answer: Sequence[Mapping[str, str]]) -> Exchange:
        """A row to train on: its answer comes right after what a measurement asks.

        Many templates show an answer in a dialogue otherwise than they ask for one: an empty thought, by which a model
        is told not to think, stands in the prompt alone; others open a thought. Trained without it a model would learn
        to answer another prompt than it is asked. So the answer is put behind the prompt as it is asked, where that
        opens a thought after its end. Where the answer itself brings a thought, that takes the place of the prompt's.
        """
        asked, whole = self.prompt(prompt), self.dialogue([*prompt, *answer])
        if whole.startswith(asked):
            return Exchange(asked, whole[len(asked) :])
        shown = self.dialogue([*prompt, _ANSWER])
        begin = alike(asked, shown)  # of an answer, in a dialogue
        if whole[:begin] != asked[:begin] or begins(whole[begin:]):
            begin = alike(asked, whole)
            return Exchange(asked[:begin], whole[begin:])
        return Exchange(asked, closing(asked) + whole[begin:])

    def row(self, prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]]) -> str:
        """A dialogue whose last answer is asked as it is measured; earlier ones are shown as what was said before."""
        messages = [*prompt, *completion]
        last = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
        return "".join(self.exchange(messages[:last], messages[last:]))

    def ids(self, *texts: str) -> list[list[int]]:
        """Tokens of rendered texts: the template writes its own BOS, the tokenizer would add a second one."""
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def _text(self, messages: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        template: Callable[..., object] = self.tokenizer.apply_chat_template  # a template's own arguments have no types
        turns = [dict(message) for message in messages]
        return str(template(turns, tokenize=False, add_generation_prompt=ask, **self.arguments))


def check_arguments(given: Mapping[str, Argument], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse arguments that a chat template does not know: they would do nothing.

    Raises:
        InputError: with those that it knows.
    """
    if not given:
        return
    known = template_names(tokenizer)
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    own = sorted(known - {*RESERVED, *tokenizer.special_tokens_map})
    allowed = f"arguments that the model's chat template reads: {', '.join(own) or 'it reads none'}"
    if tokenizer.chat_template is None:
        allowed = "nothing: the model has no chat template"
    raise InputError(problem("template_kwargs", ", ".join(unknown), allowed))


def template_names(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The names that a chat template takes from who asks it, those of the messages and the special tokens too."""
    if tokenizer.chat_template is None:
        return frozenset()
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _get_template_variables

    try:  # by transformers' own environment: templates may hold its marks of what is generated
        return frozenset(_get_template_variables(str(tokenizer.get_chat_template())))
    except (TemplateError, ValueError):  # whose error is for the rendering to tell
        return frozenset(re.findall(r"\w+", str(tokenizer.chat_template)))


def _tells_apart(tokenizer: PreTrainedTokenizerBase, name: str, values: tuple[Argument, Argument]) -> bool:
    """Whether a template shows a question otherwise by the two values of an argument."""
    if tokenizer.chat_template is None or name not in str(tokenizer.chat_template):
        return False
    from jinja2 import TemplateError

    try:
        off, on = (Rendering(tokenizer, {name: value}).prompt(_QUESTION) for value in values)
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
