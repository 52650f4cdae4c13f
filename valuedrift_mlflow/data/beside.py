"""What stands beside the texts of a row in columns of its own: a system prompt, earlier turns, a label, scores.

``EachRow`` makes a reader of many rows of one that reads the texts of a row, and adds all this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from valuedrift_mlflow.data import compared
from valuedrift_mlflow.data.dialogues import dialogue_of
from valuedrift_mlflow.data.kinds import NAMED
from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, Outcome, Raw, joined, messages_of, truth
from valuedrift_mlflow.data.names import BAD
from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.inputs.tables import plain

Reader = Callable[[Iterable[Raw]], Iterator[Outcome]]
SCORES_OF_SIDES = ("chosen_score", "rejected_score")


def _label(row: Row) -> bool | None:
    """Whether an answer is labelled good; None where nothing says it."""
    label = truth(row["label"]) if "label" in row else None
    says_bad = label is not None and plain(row.get("columns", {}).get("label", "")) in BAD
    return not label if says_bad else label


def and_label(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """Reads an answer and whether it is good."""

    def both(row: Row) -> Record:
        label = _label(row)
        if label is None:
            raise BadRow(f"label is {row.get('label')!r}, expected true or false")
        return {**read(row), "label": label}

    return both


def _in_context(made: Record, row: Row) -> Record:
    """A row with the system message and the earlier turns that its source has in columns of their own.

    Raises:
        BadRow: the prompt has another system message.
    """
    told, history = row.get("system"), row.get("history")
    if told is None and history is None:
        return made
    prompt = list(made["prompt"])
    if history not in (None, "", "[]", []):
        prompt[:0] = _earlier(history)
    if told is not None and told != "":
        text = joined(told)
        text = messages_of(told, "system")[0]["content"] if text is None else text
        own = [message["content"] for message in prompt if message["role"] == "system"]
        if own and own != [text]:
            raise BadRow(f"system is {text!r}, and the dialogue has another system message: {own[0]!r}")
        prompt = prompt if own else [{"role": "system", "content": text}, *prompt]
    return {**made, "prompt": prompt}


def _earlier(history: object) -> list[Message]:
    try:
        messages = dialogue_of(history, "history")
    except BadRow:
        raise BadRow(
            f"history holds {history!r}, expected messages, or a question and its answer for each turn"
        ) from None
    if len(messages) % 2 and messages[0]["role"] == "user":
        raise BadRow(f"history holds {history!r}, expected a question and its answer for each turn")
    return messages


@dataclass(frozen=True)
class EachRow:
    """A reader of raw rows that do not depend on each other, which keeps what the source says of their stances."""

    read: Callable[[Row], Record | list[Record]]

    def __call__(self, raws: Iterable[Raw]) -> Iterator[Outcome]:
        """What becomes of every row."""
        for raw in raws:
            row = raw.row or {}
            try:
                made = self.read(row)
                made = [_in_context(one, row) for one in (made if isinstance(made, list) else [made])]
            except NothingToLearn:
                yield Outcome(raw, dropped=1)
            except (BadRow, TypeError, AttributeError) as error:
                yield Outcome(raw, bad=str(error))
            else:
                said = _said_beside(row)
                yield Outcome(raw, [{**said, **one} for one in made] if said else made)


def _said_beside(row: Row) -> Record:
    """What the source says of a row in columns beside its texts: stances, a label, how far apart the sides are."""
    said: Record = {column: row[column] for column in NAMED if column in row and isinstance(row[column], str)}
    if "label" in row and (label := _label(row)) is not None:
        said["label"] = label
    return said | _margin(row) if "chosen_score" in row else said


def _margin(row: Row) -> Record:
    """How much better the chosen side is, where both have a number of their own."""
    try:
        scores = [compared.number(row.get(column), column) for column in SCORES_OF_SIDES]
    except BadRow:
        return {}
    return {"margin": scores[0] - scores[1]}
