"""The shapes that rows are brought into, one for each kind of training, and what can be made of what."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.inputs.rows import Record

# The columns of each kind, under the names that TRL's trainers expect.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}
SIDES = ("chosen", "rejected")
NAMED = ("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance")  # what some sources say of a row


_AT_ONCE = 8  # words of a text
_KEPT = {kind: frozenset((*columns, *NAMED)) for kind, columns in COLUMNS.items()}


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
    kept = _KEPT[kind]
    return [{column: value for column, value in row.items() if column in kept}]


def says_the_same(row: Record) -> bool:
    """Whether the sides of a pair differ in white space, in how Unicode writes a letter or in marks that nobody sees.

    There is no preference in such a pair.
    """
    if "chosen" not in row or "rejected" not in row:
        return False
    one, other = row["chosen"], row["rejected"]
    return len(one) == len(other) and all(
        _look_alike(mine["content"], theirs["content"]) for mine, theirs in zip(one, other, strict=True)
    )


def _look_alike(one: str, other: str) -> bool:
    # Word by word, a few at a time: most sides part early. `None` is no word, so a text that goes on is another one.
    return all(mine == theirs for mine, theirs in zip_longest(_seen(one), _seen(other)))


def _seen(text: str) -> Iterator[str]:
    """The words of a text as they are seen: white space parts what Unicode would write together in no form of it."""
    while text:
        words = text.split(None, _AT_ONCE)
        text = words.pop() if len(words) > _AT_ONCE else ""
        for word in words:
            if word.isascii():
                yield word
            else:
                shown = (mark for mark in unicodedata.normalize("NFKC", word) if unicodedata.category(mark) != "Cf")
                yield from "".join(shown).split()
