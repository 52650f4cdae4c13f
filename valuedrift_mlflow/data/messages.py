"""What the readers of all data formats share: messages, and what is said of a row that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from valuedrift_mlflow.inputs.rows import Record, Row

Message = dict[str, str]
_ROLES = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "system": "system",
}
_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


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

    >>> truth("True"), truth(0), truth("good")
    (True, False, None)
    """
    return _TRUTH.get(str(value).strip().lower())


def messages_of(value: object, column: str) -> list[Message]:
    """Messages under the roles user, assistant and system, without what else their source says of them.

    Raises:
        BadRow: the value is no list of messages, or one has an unknown role or no text.
    """
    if isinstance(value, str):
        raise BadRow(f"{column} is a text, expected messages")
    if not isinstance(value, Sequence) or not value:
        raise BadRow(f"{column} is {value!r}, expected messages")
    messages: list[Message] = []
    for message in value:
        role = _ROLES.get(str(message.get("role", message.get("from", "")))) if isinstance(message, Mapping) else None
        content = message.get("content", message.get("value")) if isinstance(message, Mapping) else None
        if role is None or not isinstance(content, str):
            raise BadRow(f"{column} holds {message!r}, expected role (user, assistant, system) and content")
        messages.append({"role": role, "content": content})
    return messages


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": text}
