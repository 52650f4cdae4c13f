"""Readers of rows with a chosen and a rejected side: beside a prompt, or whole dialogues that part somewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from valuedrift_mlflow.data import marks
from valuedrift_mlflow.data.answers import repeats, without
from valuedrift_mlflow.data.dialogues import answered, asked, dialogue_of, holds_dialogue, texts_of
from valuedrift_mlflow.data.kinds import SIDES
from valuedrift_mlflow.data.marks import dialogue
from valuedrift_mlflow.data.messages import BadRow, Message, text_of, written_messages
from valuedrift_mlflow.data.turns import parted
from valuedrift_mlflow.inputs.rows import Record, Row


def from_pairs(row: Row) -> Record | list[Record]:
    """Columns prompt, chosen, rejected. Sides that are whole dialogues (UltraFeedback) begin where they part.

    Sides that are lists of texts (RewardBench 2) give a pair for each: the shorter list begins again.
    """
    if isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str):
        return _pair(row)
    listed: dict[str, Sequence[object]] = {c: several_texts(row.get(c)) or [row.get(c)] for c in SIDES}
    many = max(map(len, listed.values()))
    if many > 1:
        rows = ({column: texts[at % len(texts)] for column, texts in listed.items()} for at in range(many))
        return [_pair({**row, **sides}) for sides in rows]
    return _pair(row)


def several_texts(value: object) -> list[str] | None:
    """The texts of a list. What is a text itself may well be an answer in JSON, and stays one."""
    return None if isinstance(value, str) else texts_of(value)


def _pair(row: Row) -> Record:
    prompt = _question(row)
    sides = {column: answered(row, column) for column in SIDES}
    begins = {side[0]["role"] for side in sides.values()}
    if begins == {"assistant"}:  # the answers alone, each perhaps with turns that follow it
        text = prompt[-1]["content"].strip()
        if all(repeats(text, side[0]["content"]) for side in sides.values()):
            sides = {column: without(prompt, side) for column, side in sides.items()}
        return {"prompt": prompt, **sides}
    if "assistant" in begins:
        raise BadRow("one of chosen and rejected begins with an answer and the other with a question")
    made = parted(sides["chosen"], sides["rejected"])
    return {**made, "prompt": _agreed(prompt, made["prompt"])}


def _question(row: Row) -> list[Message]:
    """The prompt of a pair. A dialogue that ends with the chosen answer ends before it."""
    prompt = asked(row)
    if prompt[-1]["role"] == "assistant" and len(prompt) > 1:
        if prompt[-1]["content"].strip() != answered(row, "chosen")[-1]["content"].strip():
            raise BadRow("prompt ends with an answer that is not the chosen one")
        return prompt[:-1]
    return prompt


def _agreed(asked: list[Message], dialogue: list[Message]) -> list[Message]:
    """The prompt within the sides, which must hold the question of the column and gets its system message.

    Raises:
        BadRow: they ask different things.
    """
    said = {" ".join(message["content"].split()) for message in dialogue}
    if " ".join(asked[-1]["content"].split()) not in said:
        raise BadRow(f"prompt asks {asked[-1]['content']!r}, and chosen and rejected answer something else")
    told = [message for message in asked if message["role"] == "system"]
    return dialogue if dialogue[0]["role"] == "system" else [*told, *dialogue]


def with_rejected(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """Reads an answer, which is the chosen one, and the rejected one beside it (Swift)."""

    def both(row: Row) -> Record:
        made = read(row)
        return {"prompt": made["prompt"], "chosen": made["completion"], "rejected": answered(row, "rejected_one")[-1:]}

    return both


def from_dialogue_pairs(row: Row) -> Record | list[Record]:
    """Pairs whose question is a dialogue."""
    return from_pairs({**row, "prompt": dialogue_of(row.get("dialogue"), "dialogue")})


def from_dialogues(row: Row) -> Record:
    """Two dialogues, whose common beginning is the prompt."""
    return parted(*(_sides(row, column) for column in SIDES))


def _like_hh_rlhf(text: str) -> bool:
    """Whether a text is marked as HH-RLHF's are, and no template's marks can be in it."""
    return text.startswith("\n\nHuman:") and "\n\nAssistant:" in text and "<" not in text and "[" not in text


def _sides(row: Row, column: str) -> list[Message]:
    value = row.get(column)
    if isinstance(value, str) and _like_hh_rlhf(value):
        return dialogue(value)
    if not isinstance(value, str) or written_messages(value) is not None:
        return dialogue_of(value, column)  # TRL's "implicit prompt": messages that begin alike
    messages = marks.turns(text_of(row, column)) or dialogue(value)
    if not messages:
        raise BadRow(f"{column} is a text, and there is no prompt: expected messages, or turns that begin with Human:")
    return messages


def _sides_or_none(row: Row, column: str) -> list[Message] | None:
    try:
        return _sides(row, column)
    except BadRow:
        return None


def marked(row: Row) -> bool:
    """Whether a side is a text with the marks of turns in it."""
    return any(isinstance(row.get(side), str) and bool(_sides_or_none(row, side)) for side in SIDES)


def implicit(row: Row) -> bool:
    """Whether both sides are dialogues in messages, with what was asked in them."""
    return all(not _is_text(row.get(side)) and holds_dialogue(row.get(side)) for side in SIDES)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and written_messages(value) is None


def holds_messages(row: Row) -> bool:
    """Whether the question of a pair is written as messages, be it one alone."""
    value = row.get("dialogue")
    return not isinstance(value, str) or holds_dialogue(value) or written_messages(value) is not None


def holds_both(row: Row) -> bool:
    """Whether there is a dialogue, and a rejected answer beside it."""
    return holds_dialogue(row.get("dialogue")) and row.get("rejected_one") not in (None, "")
