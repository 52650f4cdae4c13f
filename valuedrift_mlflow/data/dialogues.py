"""What a cell holds, as messages: lists of them in any notation, turns in pairs, texts with marks, texts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from valuedrift_mlflow.data import marks
from valuedrift_mlflow.data.messages import (
    ROLE_KEYS,
    BadRow,
    Message,
    NothingToLearn,
    assistant,
    messages_of,
    parsed,
    user,
    usual_messages,
    written_messages,
)
from valuedrift_mlflow.inputs.reading import json_of
from valuedrift_mlflow.inputs.rows import Row

# Records that hold a question and its answer under names of their own: Capybara, Swift and others.
_TURNS = (
    *(("input", "output"), ("human", "assistant"), ("user", "assistant"), ("prompt", "response")),
    *(("question", "answer"), ("query", "response"), ("instruction", "output"), ("human", "gpt"), ("user", "bot")),
)
_WITHIN = ("messages", "conversation", "conversations", "turns")  # a record around the messages
_SAID_IN = ("text", "content", "answer", "response", "output", "completion")  # a record around an answer
_ASKED_IN = ("full_text", "post", "article", "text", "content", "prompt", "question")  # WebGPT, summaries


def dialogue_of(value: object, column: str) -> list[Message]:
    """Messages from all that a dialogue is written as.

    Raises:
        BadRow: it is none.
    """
    usual = usual_messages(value)
    if usual:
        return usual
    if isinstance(value, str) and written_messages(value) is None:
        written = parsed(value) if value.lstrip()[:1] in ("[", "{") else None
        turned = marks.turns(value) if written is None else None
        if turned is not None:
            return turned
        value = written if isinstance(written, list | dict) else value
    if isinstance(value, Mapping):
        within = next((value[name] for name in _WITHIN if name in value), None)
        return messages_of(value, column) if within is None else dialogue_of(within, f"{column}.messages")
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        told = [_turn(turn) for turn in value]
        if None not in told:
            return [message for turn in told if turn for message in turn]
    return messages_of(value, column)


def _turn(value: object) -> list[Message] | None:
    """A question and its answer that stand together; None where it is no such thing."""
    if isinstance(value, Mapping):
        names = next((names for names in _TURNS if set(names) <= set(value)), None)
        value = [value[name] for name in names] if names else None
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    asked, answer = value
    return [user(asked), assistant(answer)] if isinstance(asked, str) and isinstance(answer, str) else None


def _listed(text: str) -> list[object] | None:
    """A list that a text holds as JSON: texts, or turns in pairs."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json_of(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and found and all(isinstance(one, str | list) for one in found) else None


def texts_of(value: object) -> list[str] | None:
    """The texts of a list that holds nothing else, as it is or written as JSON; None for anything else."""
    value = _listed(value) if isinstance(value, str) else value
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [str(one) for one in value] if all(isinstance(one, str) for one in value) else None
    return None


def asked(row: Row, column: str = "prompt") -> list[Message]:
    """A prompt: a text, with turns where marks divide it, a record that holds one, or messages.

    Raises:
        BadRow: it is none of these, or holds turns and does not end with one of a user.
    """
    value = row.get(column)
    if isinstance(value, Mapping) and not set(_WITHIN) & set(value):
        value = next((value[name] for name in _ASKED_IN if isinstance(value.get(name), str)), value)
    if not isinstance(value, str) or written_messages(value) is not None:
        return dialogue_of(value, column)
    if not value.strip():
        raise BadRow(f"{column} is {value!r}, expected a text that is not empty")
    messages = marks.turns(value)
    if messages is None:
        if marks.token(value):
            raise BadRow(f"{column} holds marks of a chat template that give no turns: {value!r}")
        value, more = marks.unspoken(value), row.get("more")
        return [user(f"{value}\n\n{more}" if isinstance(more, str) and more.strip() else value)]
    while messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()  # where the answer goes
    if not messages or messages[-1]["role"] != "user":
        raise BadRow(f"{column} holds turns and does not end with one of a user")
    return messages


def answered(row: Row, column: str) -> list[Message]:
    """An answer: a text, or messages that end with one of the assistant's. A text may hold a dialogue by its marks.

    Raises:
        BadRow: it is neither, or a text with the marks of a chat template in it.
        NothingToLearn: it is empty.
    """
    answer = row.get(column)
    # Most answers begin with a letter and hold none of what marks could begin with: nothing below would find any.
    if isinstance(answer, str) and answer[:1].isalnum() and "<" not in answer and "[" not in answer:
        return [assistant(answer)]
    if isinstance(answer, Mapping) and not set(ROLE_KEYS) & set(answer):
        answer = next((answer[name] for name in _SAID_IN if isinstance(answer.get(name), str)), answer)
    alone = None if isinstance(answer, str) else texts_of(answer)
    if alone is not None:
        if len(alone) != 1:
            raise BadRow(f"{column} holds {len(alone)} texts, expected one answer")
        answer = alone[0]
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise NothingToLearn(column)
    if isinstance(answer, str) and written_messages(answer) is None:
        if answer.startswith("\n\nHuman:"):
            return marks.dialogue(answer)  # the whole dialogue, as HH-RLHF has it
        if isinstance(row.get("prompt"), str) and marks.token(row["prompt"]):
            answer = marks.unended(answer)  # a template wrote both: its end of a turn is no part of what is said
        answer = marks.unstopped(answer)
        mark = marks.token(answer)
        turned = marks.turns(answer) if mark else None
        if turned and turned[-1]["role"] == "assistant" and any(turn["role"] == "user" for turn in turned):
            return turned  # the whole dialogue, as a template writes it
        if mark:
            raise BadRow(f"{column} holds marks of a chat template ({mark}), expected its text alone")
        # Sources whose texts are meant to be joined (TRL's completions, HH-RLHF's) part them by this one space.
        joined = answer[:1] == " " and not answer[1:2].isspace()
        return [assistant(answer[1:] if joined else answer)]
    messages = dialogue_of(answer, column)
    if any(message["role"] == "assistant" for message in messages):
        while messages[-1]["role"] in ("user", "tool"):
            messages.pop()  # nobody answered it
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"{column} does not end with an assistant's message")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages


def following(prompt: list[Message], answer: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    """A prompt and the answer to it, of which some files write the whole dialogue in the answer's column.

    Raises:
        BadRow: it is a dialogue in which nobody asks what the prompt does.
    """
    if answer[0]["role"] == "assistant":
        return prompt, answer
    question = " ".join(prompt[-1]["content"].split())
    asks = [
        at for at, one in enumerate(answer) if one["role"] == "user" and " ".join(one["content"].split()) == question
    ]
    if not asks or asks[-1] + 1 == len(answer):
        raise BadRow(f"prompt asks {prompt[-1]['content']!r}, and the dialogue in {column} answers something else")
    begun = answer[: asks[-1] + 1]
    told = [message for message in prompt if message["role"] == "system" and begun[0]["role"] != "system"]
    return [*told, *begun], answer[asks[-1] + 1 :]


def holds_dialogue(value: object) -> bool:
    """Whether a cell holds several messages: a list, JSON or pandas' notation of one, or a text with marks of turns."""
    if isinstance(value, str) and not value.strip():
        return False
    try:
        return texts_of(value) is None and len(dialogue_of(value, "")) > 1
    except (BadRow, TypeError, AttributeError):
        return False
