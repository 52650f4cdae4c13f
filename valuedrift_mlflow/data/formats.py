"""The formats that data comes in: by which columns each is recognised, and how its rows are brought into one shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from valuedrift_mlflow.data import prism_pairs
from valuedrift_mlflow.data.messages import (
    BadRow,
    Message,
    NothingToLearn,
    Outcome,
    Raw,
    assistant,
    messages_of,
    text_of,
    truth,
    user,
)
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.inputs.rows import Record, Row

# The columns of each kind, under the names that TRL's trainers expect.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}
SIDES = ("chosen", "rejected")
NAMED = ("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance")  # what some sources say of a row
MAX_DROPPED = 0.01  # share of rows that may be dropped before it is an error


# Answers -------------------------------------------------------------------------------------------------------------


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        raise BadRow(f"{column} does not end with an assistant's message after a user's")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages[:-1], messages[-1:]


def _from_messages(row: Row) -> Record:
    prompt, completion = _split_answer(messages_of(row.get("messages"), "messages"), "messages")
    return {"prompt": prompt, "completion": completion}


def _from_wildchat(row: Row) -> Record:
    """The last answer of a conversation. What a user said after it got none, and is left out."""
    messages = messages_of(row.get("conversation"), "conversation")
    while messages and messages[-1]["role"] == "user":
        messages.pop()
    if not messages:
        raise NothingToLearn("conversation")
    prompt, completion = _split_answer(messages, "conversation")
    return {"prompt": prompt, "completion": completion}


def _from_alpaca(row: Row) -> Record:
    asked = text_of(row, "instruction")
    if isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n\n{row['input']}"
    return {"prompt": [user(asked)], "completion": _answered(row, "output")}


def _from_completion(row: Row) -> Record:
    return {"prompt": _asked(row), "completion": _answered(row, "completion")}


def _from_labelled(row: Row) -> Record:
    label = truth(row.get("label"))
    if label is None:
        raise BadRow(f"label is {row.get('label')!r}, expected true or false")
    return {**_from_completion(row), "label": label}


def _from_prompt(row: Row) -> Record:
    prompt = _asked(row)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user's message")
    return {"prompt": prompt}


def _asked(row: Row) -> list[Message]:
    if isinstance(row.get("prompt"), str):
        return [user(text_of(row, "prompt"))]
    return messages_of(row.get("prompt"), "prompt")


def _answered(row: Row, column: str) -> list[Message]:
    answer = row.get(column)
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise NothingToLearn(column)
    if isinstance(answer, str):
        return [assistant(answer)]
    messages = messages_of(answer, column)
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"{column} does not end with an assistant's message")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages


# Pairs ---------------------------------------------------------------------------------------------------------------


def _from_pairs(row: Row) -> Record:
    """Columns prompt, chosen, rejected. Sides that are whole dialogues (UltraFeedback) keep their last answer only."""
    asked = _asked(row)
    prompts, sides = {}, {}
    for column in ("chosen", "rejected"):
        messages = _answered(row, column)
        prompts[column], sides[column] = _split_answer(messages, column) if len(messages) > 1 else (asked, messages)
    if prompts["chosen"] != prompts["rejected"]:
        raise BadRow("chosen and rejected answer different prompts")
    return {"prompt": prompts["chosen"], **sides}


_TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
_TURN = re.compile("|".join(_TURNS))


def dialogue(text: str) -> list[Message]:
    r"""Split an HH-RLHF dialogue at its turns.

    >>> dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    marks = [(match.start(), match.group()) for match in _TURN.finditer(text)]
    messages: list[Message] = []
    for (at, mark), (end, _) in pairwise([*marks, (len(text), "")]):
        content = text[at + len(mark) : end].strip()
        if messages and messages[-1]["role"] == _TURNS[mark]:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": _TURNS[mark], "content": content})
    return messages


def _from_hh_rlhf(row: Row) -> Record:
    sides = {column: dialogue(text_of(row, column)) for column in ("chosen", "rejected")}
    chosen, rejected = sides["chosen"], sides["rejected"]
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    # Both sides must answer the same turn: the prompt is the shared dialogue up to the last message of a user.
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    answers = {}
    for column, messages in sides.items():
        if not shared or len(messages) <= shared:
            raise BadRow(f"{column} has no answer of its own after the shared dialogue")
        answer = messages[shared]
        if answer["role"] != "assistant":
            raise BadRow(f"{column} has no answer right after the shared dialogue")
        if not answer["content"]:
            raise NothingToLearn(column)
        answers[column] = [answer]
    if answers["chosen"] == answers["rejected"]:  # the dialogues differ in a later message of the user
        raise NothingToLearn("chosen, rejected")
    return {"prompt": chosen[:shared], **answers}


# The formats ---------------------------------------------------------------------------------------------------------

Reader = Callable[[Iterable[Raw]], Iterator[Outcome]]


@dataclass(frozen=True)
class Format:
    """Rows of one shape. ``read`` gets raw rows that are rows, and tells for each what became of it."""

    kind: Kind
    columns: tuple[str, ...]
    read: Reader
    max_dropped: float = MAX_DROPPED


def _each(read: Callable[[Row], Record | list[Record]]) -> Reader:
    """A reader of raw rows that do not depend on each other, which keeps what the source says of their stances."""

    def outcomes(raws: Iterable[Raw]) -> Iterator[Outcome]:
        for raw in raws:
            row = raw.row or {}
            try:
                made = read(row)
            except NothingToLearn:
                yield Outcome(raw, dropped=1)
            except (BadRow, TypeError, AttributeError) as error:
                yield Outcome(raw, bad=str(error))
            else:
                named = {column: row[column] for column in NAMED if isinstance(row.get(column), str)}
                label = truth(row.get("label"))
                if label is not None:
                    named["label"] = label
                yield Outcome(raw, [{**named, **one} for one in (made if isinstance(made, list) else [made])])

    return outcomes


# In the order in which they are tried: a format is recognised when the data has all of its columns, and first among
# those that can serve the algorithm.
FORMATS: dict[str, Format] = {
    "pairs": Format("pairs", ("prompt", "chosen", "rejected"), _each(_from_pairs)),
    "hh-rlhf": Format("pairs", ("chosen", "rejected"), _each(_from_hh_rlhf)),
    "prism-utterances": Format(
        "pairs",
        ("conversation_id", "turn", "user_prompt", "model_response", "score", "if_chosen"),
        prism_pairs.from_utterances,
        max_dropped=1,  # ties are common
    ),
    "prism-conversations": Format(
        "pairs", ("conversation_history",), _each(prism_pairs.from_conversation), max_dropped=1
    ),
    "messages": Format("sft", ("messages",), _each(_from_messages)),
    "wildchat": Format("sft", ("conversation",), _each(_from_wildchat)),
    "alpaca": Format("sft", ("instruction", "output"), _each(_from_alpaca)),
    "labelled": Format("labelled", ("prompt", "completion", "label"), _each(_from_labelled)),
    "prompt-completion": Format("sft", ("prompt", "completion"), _each(_from_completion)),
    "prompt": Format("prompts", ("prompt",), _each(_from_prompt)),
}


def serves(have: Kind, need: Kind) -> bool:
    """Whether rows of one kind can be made from rows of another without inventing anything."""
    return have == need or need == "prompts" or (have, need) == ("pairs", "labelled")


def as_kind(kind: Kind, row: Record) -> list[Record]:
    """The rows of ``kind`` that one row gives: a pair is two labelled answers, a row of any kind has a prompt.

    An answer that is labelled bad is none to learn from, so it gives no row of kind ``sft``. What the source names of
    a row (``NAMED``) stays beside the columns of the kind. A ``label`` beside a pair says nothing of its sides.
    """
    if kind == "sft" and row.get("label") is False:
        return []
    if kind == "labelled" and "chosen" in row:
        named: Record = {column: row[column] for column in ("topic", "proposition_id") if column in row}
        return [
            {
                **named,
                **({"stance": row[f"{side}_stance"]} if f"{side}_stance" in row else {}),
                "prompt": row["prompt"],
                "completion": row[side],
                "label": side == "chosen",
            }
            for side in ("chosen", "rejected")
        ]
    kept = {*COLUMNS[kind], *NAMED}
    return [{column: value for column, value in row.items() if column in kept}]


def says_the_same(row: Record) -> bool:
    """Whether the two sides of a pair differ in white space alone: there is no preference in it."""
    sides = [[" ".join(message["content"].split()) for message in row[side]] for side in SIDES if side in row]
    return len(sides) == len(SIDES) and sides[0] == sides[1]


def recognise(columns: Sequence[str], kind: Kind | None) -> str | None:
    """The first format whose columns are all there and that serves ``kind``, else the first whose columns are there."""
    there = [name for name, form in FORMATS.items() if set(form.columns) <= set(columns)]
    fit = (name for name in there if kind is None or serves(FORMATS[name].kind, kind))
    return next(fit, there[0] if there else None)
