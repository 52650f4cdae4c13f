"""The single answers, or pairs of answers, that rows of several turns hold: what is learnt from is what is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from valuedrift_mlflow.data.blocks import cut
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.data.turns import single
from valuedrift_mlflow.inputs.rows import Record, Row

_TEXTS = ("prompt", "completion", "chosen", "rejected")


def exchanges(row: Row) -> Iterator[Row]:
    """One row for each answer of a row's completion, or for each pair of answers of its sides.

    Sides are compared answer by answer as long as their users say the same; answers that are equal are left out.
    """
    if "completion" in row:
        yield from single(dict(row)) if len(row["completion"]) > 1 else [row]
    elif max(len(row["chosen"]), len(row["rejected"])) == 1:
        yield row
    else:
        yield from _compared(dict(row))


def _compared(row: Record) -> Iterator[Record]:
    sides = [_turns(row[name]) for name in ("chosen", "rejected")]
    # As far as both sides go: one may have more turns.
    for (asked, chosen), (other, rejected) in zip(*sides, strict=False):
        # From here on they answer different questions: nothing there is a comparison any more.
        if _users(asked) != _users(other):
            return
        if chosen != rejected:
            yield {**row, "prompt": [*row["prompt"], *asked], "chosen": [chosen], "rejected": [rejected]}


def _turns(side: Sequence[Message]) -> list[tuple[list[Message], Message]]:
    """Every answer of a side with what was said on that side before it."""
    return [(list(side[:at]), message) for at, message in enumerate(side) if message["role"] == "assistant"]


def _users(said: Sequence[Message]) -> list[str]:
    return [message["content"] for message in said if message["role"] == "user"]


def is_wanted(row: Row) -> bool:
    """Whether a row is looked at, and has a number: an answer that is labelled bad is none to move towards."""
    return row.get("label") is not False


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """What rows say to one question at a time. ``row`` is the number of the row, ``turn`` the place within it."""
    said: Iterator[Row] = (
        {**one, "row": number, "turn": turn}
        for number, row in enumerate(filter(is_wanted, rows), 1)
        for turn, one in enumerate(exchanges(row))
    )
    return cut(said, _characters)


def _characters(row: Row) -> int:
    return sum([len(said["content"]) for name in _TEXTS if name in row for said in row[name]])


def rows_of(batch: Sequence[Row]) -> int:
    """How many rows begin in a batch."""
    return sum(one["turn"] == 0 for one in batch)
