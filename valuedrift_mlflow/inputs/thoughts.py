"""Thought and answer of a reasoning model: what it thinks before it answers is not what it says.

A thought weighs both sides whatever the answer is. Read as part of it, it makes any stance look neutral.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

# How models mark a thought: Qwen, DeepSeek and most others; older prompts; Mistral's Magistral; Sky-T1 and its kin.
_OPEN = (
    r"<(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)>|\[THINK\]|<\|begin_of_thought\|>"
)
_CLOSE = (
    r"</(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)>|\[/THINK\]|<\|end_of_thought\|>"
)
_MARK = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_OPENED = re.compile(rf"(?:{_OPEN})\s*$", re.IGNORECASE)
# Channels of OpenAI's open models: what is said in "final" is the answer, all before it is thought.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_FINAL = re.compile(r"<\|channel\|>\s*final[^<]*<\|message\|>")
_CHANNELS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
_AFTER = re.compile(r"<\|(?:end|return|start)\|>.*", re.DOTALL)
# What marks an answer after a thought, and is no part of it.
_ANSWER = re.compile(
    r"^\s*(?:<answer>|<\|begin_of_solution\|>)\s*(.*?)\s*(?:</answer>|<\|end_of_solution\|>)?\s*$", re.DOTALL
)
UNFINISHED = "unfinished thought"


class Spoken(NamedTuple):
    """A response in two: what was thought, and what was said; ``finished`` is False where a thought has no end."""

    answer: str
    thought: str = ""
    finished: bool = True


def spoken(response: str) -> Spoken:
    r"""Take a response apart. A text without marks of thinking is its own answer, to the last letter.

    A thought may have been opened by the prompt: then its end alone stands in the response, and all before it is
    thought. What is quoted in an answer after the thoughts (a lone opening mark in code, say) counts as a thought that
    has no end.

    >>> spoken("<think>They close them, so ...</think>\n\nI oppose it.").answer
    'I oppose it.'
    >>> spoken("They close them, so ...</think>I oppose it.").answer, spoken("<think>On the one hand").finished
    ('I oppose it.', False)
    """
    if "<" not in response and "[" not in response:  # so most texts are, and this is quicker to see
        return Spoken(response)
    channels = list(_CHANNEL.finditer(response))
    if channels:
        return _channelled(response, channels)
    marks = list(_MARK.finditer(response))
    if not marks:
        # To the last letter, blanks too: most models do not think, and theirs must stay what it was.
        return Spoken(response)
    said: list[str] = []
    thought: list[str] = []
    depth, at = 0, 0
    for mark in marks:
        piece = response[at : mark.start()]
        if mark["close"] and depth == 0:  # opened by the prompt: nothing so far was said
            thought += [*said, piece]
            said = []
        else:
            (thought if depth else said).append(piece)
        depth = depth + 1 if mark["open"] else max(0, depth - 1)
        at = mark.end()
    (thought if depth else said).append(response[at:])
    answer = "".join(said).strip()
    marked = _ANSWER.match(answer)
    return Spoken(marked[1] if marked else answer, "".join(thought).strip(), depth == 0)


def _channelled(response: str, channels: list[re.Match[str]]) -> Spoken:
    """The message in the channel ``final``, and those in all others."""
    ends = [*(match.start() for match in channels[1:]), len(response)]
    messages = [
        (match[1], _AFTER.sub("", response[match.end() : end]).strip())
        for match, end in zip(channels, ends, strict=True)
    ]
    thought = "\n".join(text for channel, text in messages if channel != "final")
    final = [text for channel, text in messages if channel == "final"]
    return Spoken("\n".join(final), thought, bool(final))


def opened(prompt: str) -> str:
    """The mark with which a prompt opens the thought of its response, as some chat templates do; else empty."""
    found = _OPENED.search(prompt)
    return found[0] if found else ""


def closing(prompt: str) -> str:
    r"""What ends the thought that a prompt opens, for an answer that has to begin at once; else empty.

    >>> closing("<|assistant|>\n<think>\n"), closing("[THINK]"), closing("<|assistant|>")
    ('</think>\n\n', '[/THINK]\n\n', '')
    """
    mark = opened(prompt).strip()
    if mark.startswith("<|"):
        return "<|end_of_thought|>\n\n"
    return f"{mark[0]}/{mark[1:]}\n\n" if mark else ""


def has_mark(text: str) -> bool:
    """Whether a text holds a mark of thinking, or of a channel that may be one."""
    return bool(_MARK.search(text)) or _CHANNELS[0] in text


def marks_among(tokens: Collection[str]) -> set[str]:
    """The special tokens of a model that mark its thoughts.

    Many models end their turns with ``<|end|>``; only beside channels is it a mark.

    >>> sorted(marks_among(["<|end|>", "<|user|>", "[THINK]"])), sorted(marks_among(["<|end|>", "<|channel|>"]))
    (['[THINK]'], ['<|channel|>', '<|end|>'])
    """
    channels = _CHANNELS if _CHANNELS[0] in tokens else ()
    return {token for token in tokens if token in channels or _MARK.search(token)}


def begun(text: str) -> bool:
    """Whether a thought is begun in a text."""
    return bool(re.search(_OPEN, text, re.IGNORECASE) or _CHANNEL.search(text))


def begins(text: str) -> bool:
    """Whether a text begins with a thought.

    >>> begins("<think>Hm.</think>Yes."), begins("Yes. <think>")
    (True, False)
    """
    return bool(re.match(rf"\s*(?:{_OPEN})", text, re.IGNORECASE))


def ended(text: str) -> bool:
    """Whether a thought ends in a text."""
    return bool(re.search(_CLOSE, text, re.IGNORECASE) or _FINAL.search(text))


def before_stop(response: str, stops: Sequence[str]) -> str:
    """A response up to the first of the texts that end an answer; what stands in its thoughts ends none.

    >>> before_stop("<think>A. Q: B?</think>Yes. Q: And C?", ["Q:"])
    '<think>A. Q: B?</think>Yes. '
    """
    start = max((mark.end() for mark in re.finditer(_CLOSE, response, re.IGNORECASE)), default=0)
    start = max([start, *(final.end() for final in _FINAL.finditer(response))])
    if start == 0 and begun(response):
        return response
    places = [place for stop in stops if (place := response.find(stop, start)) >= 0]
    return response[: min(places)] if places else response
