"""What the readers of all data formats share: messages, and what is said of a row that cannot be used."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from valuedrift_mlflow.inputs.reading import json_of
from valuedrift_mlflow.inputs.rows import Record, Row

Message = dict[str, str]
_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",  # what OpenAI's newer models call it
    **dict.fromkeys(("tool", "function", "observation", "ipython", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
_CALL = "<tool_call>"  # as Hermes and Qwen write calls; a template's own notation is not known here
ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "parts", "text", "message", "utterance")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")  # types of a message's parts
_LEARNT = ("train", "training", "loss")  # what is false in a turn that nobody learns from, beside a weight of 0
_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_TRUTH |= {"good": True, "desirable": True, "chosen": True, "bad": False, "undesirable": False, "rejected": False}
_TRUTH |= {"thumbs_up": True, "liked": True, "accepted": True, "thumbs_down": False, "disliked": False, "-1": False}
_TRUTH |= {"yes": True, "no": False, "correct": True, "incorrect": False, "safe": True, "unsafe": False}
_TRUTH |= {"preferred": True, "dispreferred": False, "accept": True, "reject": False, "up": True, "down": False}
_TRUTH |= {"pass": True, "fail": False, "desired": True, "undesired": False, "y": True, "n": False}


_WRITTEN = re.compile(r"\s*(?:(?:array\()?\[\s*\{|\{\s*[\"'](?:role|from|content|value)[\"'])")


class Untrained(Message):
    """A message that its source gives the weight 0: it is said, and nobody learns from it. Equal to any like it."""


class BadRow(ValueError):
    """A row that cannot be read; the message says why."""


class NothingToLearn(Exception):
    """A readable row with an empty answer, or with two equal ones. Human data has a few."""


class Raw(NamedTuple):
    """A row as its source has it: its number from 1 within its file, and what is wrong where it is no row at all."""

    number: int
    row: Row | None
    file: str = ""  # of a folder with several
    problem: str = ""


class Outcome(NamedTuple):
    """What a format makes of one raw row or of several that belong together."""

    raw: Raw
    rows: Sequence[Record] = ()
    bad: str = ""
    dropped: int = 0  # raw rows that teach nothing
    made_from: int = 1  # raw rows that the given ones are made from


def text_of(row: Row, column: str) -> str:
    """A column that must hold a text.

    Raises:
        BadRow: it does not, or the text is empty.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{column} is {value!r}, expected a text that is not empty")
    return value


def truth(value: object) -> bool | None:
    """True or false as data files write them, None for anything else.

    >>> truth("True"), truth(0), truth("undesirable"), truth("politics")
    (True, False, False, None)
    """
    return _TRUTH.get(str(value).strip().lower())


def messages_of(value: object, column: str) -> list[Message]:
    """Messages under the roles user, assistant and system, without what else their source says of them.

    Roles go by the names of the field (``human``, ``gpt``, ``model``, ``developer``, in any case), texts under
    ``content``, ``value`` or ``parts``, whole or as parts; a list of texts alone is a dialogue that a user begins; one
    message may stand without a list. What is written as JSON, or as Python and pandas write lists, is read. Turns of
    tools have the role ``tool``; a call of a tool is an assistant's turn whose text is the call (``calls_tool``). A
    ``weight`` of 0 makes a message ``Untrained``.

    Raises:
        BadRow: the value is no list of messages, or one has an unknown role or no text.
    """
    usual = usual_messages(value)
    if usual:
        return usual
    if isinstance(value, str):
        value = written_messages(value)
        if value is None:
            raise BadRow(f"{column} is a text, expected messages")
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise BadRow(f"{column} is {value!r}, expected messages")
    if all(isinstance(message, str) for message in value):
        return [user(text) if turn % 2 == 0 else assistant(text) for turn, text in enumerate(map(str, value))]
    messages: list[Message] = []
    for message in value:
        role = content = None
        if isinstance(message, Mapping):
            role = _ROLES.get(str(_first(message, ROLE_KEYS)).lower())
            content = _content(_first(message, _TEXT_KEYS))
            if message.get("tool_calls") or message.get("function_call"):
                content = _called(message, content or "")
        if role is None or content is None:
            raise BadRow(f"{column} holds {message!r}, expected role (user, assistant, system, tool) and content")
        messages.append(_weighed({"role": role, "content": content}, message, column))
    return messages


def usual_messages(value: object) -> list[Message] | None:
    """Messages that are written as most are, with nothing else to look at; None for all others, and for no messages.

    Nearly all rows are such, and this is several times quicker than to look for every other notation.
    """
    if type(value) is not list:
        return None
    messages: list[Message] = []
    for message in value:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or type(content) is not str or role not in _ROLES:
            return None
        messages.append({"role": _ROLES[role], "content": content})
    return messages or None


def _weighed(made: Message, source: Row, column: str) -> Message:
    """A message with the weight that OpenAI's fine-tuning files give it; axolotl and Swift say true or false.

    Raises:
        BadRow: another weight than 0 and 1, which no trainer here would heed.
    """
    if made["role"] != "assistant":
        return made
    weight = source.get("weight")
    if weight is not None and weight not in (0, 1, "0", "1"):
        raise BadRow(f"{column} holds the weight {weight!r}, expected 0 or 1")
    untrained = weight in (0, "0") or any(source.get(name) is False for name in _LEARNT)
    return Untrained(made) if untrained else made


def _first(message: Row, keys: Sequence[str]) -> object:
    return next((message[key] for key in keys if message.get(key) is not None), None)


def _content(value: object) -> str | None:
    """A text, or the texts of its parts one after the other; None where a part is none (an image).

    A part that is a thought is left out, as thoughts in fields of their own are: it is no part of what is said.
    """
    if isinstance(value, Mapping):
        return value["text"] if isinstance(value.get("text"), str) else None
    if isinstance(value, str) or value is None:
        return value
    parts = value if isinstance(value, Sequence) else [None]
    said = [part for part in parts if not (isinstance(part, Mapping) and part.get("type") in _THOUGHTS)]
    texts = [_content(part) for part in said]
    return None if not texts or None in texts else "".join(map(str, texts))


def joined(value: object) -> str | None:
    """The text of a cell that is one, or that holds it in parts; None for anything else."""
    return _content(value)


def written_messages(text: str) -> list[object] | None:
    """The messages that a text holds as JSON or as Python writes them; None where it is a text like any other."""
    if not _WRITTEN.match(text) or not any(key in text for key in ROLE_KEYS):
        return None
    found = parsed(text)
    found = [found] if isinstance(found, dict) else found
    holds = isinstance(found, list) and all(isinstance(one, dict) and set(ROLE_KEYS) & set(one) for one in found)
    return found if holds and isinstance(found, list) else None


def parsed(text: str) -> object:
    """What a text holds as JSON, or as Python and pandas write it; None where it is neither."""
    try:
        return json_of(text)
    except ValueError:
        return _python_list(text)


def _python_list(text: str) -> object:
    """What a text holds as Python or pandas write it (``array([...], dtype=object)`` too); else None."""
    text = re.sub(r"^\s*array\((.*?)(?:,\s*dtype=object)?\)\s*$", r"\1", text, flags=re.DOTALL)
    try:
        # Literals alone: the text is somebody's data, and nothing in it may run.
        return ast.literal_eval(re.sub(r"\}\s*\n\s*\{", "}, {", text.strip()))  # numpy writes no commas
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _called(message: Row, said: str) -> str:
    """The text of a turn that calls tools."""
    calls = message.get("tool_calls") or [message["function_call"]]
    calls = calls if isinstance(calls, Sequence) and not isinstance(calls, str) else [calls]
    told = [call.get("function", call) if isinstance(call, Mapping) else call for call in calls]
    written = [f"{_CALL}\n{json.dumps(call, ensure_ascii=False, default=str)}\n</tool_call>" for call in told]
    return "\n".join([said, *written] if said else written)


def calls_tool(message: Message) -> bool:
    """Whether a turn of the assistant's calls a tool, and so is no answer to a person."""
    return message["role"] == "assistant" and _CALL in message["content"]


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": text}
