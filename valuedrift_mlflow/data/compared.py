"""Layouts in which answers to one prompt are compared: two with a winner, or several that are ranked or rated.

The best answer is chosen and the worst rejected. A tie has no preference and is dropped; it is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, assistant, messages_of, user
from valuedrift_mlflow.inputs.rows import Record, Row


class Rated(NamedTuple):
    """An answer with how good it is: the higher the better."""

    text: object
    worth: float


def best_and_worst(answers: Sequence[Rated], column: str) -> dict[str, list[Message]]:
    """The sides of a pair from at least two answers.

    Raises:
        BadRow: fewer than two, or one is no text.
        NothingToLearn: all are worth the same, or one of the two is empty.
    """
    if len(answers) < 2:
        raise BadRow(f"{column} has {len(answers)} answers, expected two or more")
    ranked = sorted(answers, key=lambda answer: -answer.worth)
    if ranked[0].worth == ranked[-1].worth:
        raise NothingToLearn(column)
    sides = {}
    for side, rated in (("chosen", ranked[0]), ("rejected", ranked[-1])):
        if not isinstance(rated.text, str):
            raise BadRow(f"{column} holds {rated.text!r}, expected a text")
        if not rated.text.strip():
            raise NothingToLearn(column)
        sides[side] = [assistant(rated.text)]
    return sides


def _number(value: object, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"{column} is {value!r}, expected a number")
    return float(value)


def two_rated(asked: str, answers: tuple[str, str], worth: tuple[str, str]) -> Callable[[Row], Record]:
    """Two columns of answers and one of a number for each: WebGPT's comparisons."""

    def read(row: Row) -> Record:
        rated = [Rated(row.get(a), _number(row.get(w), w)) for a, w in zip(answers, worth, strict=True)]
        return {"prompt": _question(row, asked), **best_and_worst(rated, answers[0])}

    return read


def two_with_winner(asked: str, answers: tuple[str, str], winner: str) -> Callable[[Row], Record]:
    """Two columns of answers and the number of the better one, from 0: PKU-SafeRLHF, BeaverTails."""

    def read(row: Row) -> Record:
        if row.get(winner) not in (0, 1):
            raise BadRow(f"{winner} is {row.get(winner)!r}, expected 0 or 1")
        rated = [Rated(row.get(column), float(place == row[winner])) for place, column in enumerate(answers)]
        return {"prompt": _question(row, asked), **best_and_worst(rated, answers[0])}

    return read


def two_with_strength(asked: str, answers: tuple[str, str], strength: str) -> Callable[[Row], Record]:
    """Two columns of answers and a number below 0 where the first is better: HelpSteer's preferences."""

    def read(row: Row) -> Record:
        number = _number(row.get(strength), strength)
        rated = [Rated(row.get(answers[0]), -number), Rated(row.get(answers[1]), number)]
        return {"prompt": _question(row, asked), **best_and_worst(rated, answers[0])}

    return read


def arena(row: Row) -> Record:
    """Two conversations and who won: LMSYS's arenas. Both must begin alike; where they part is the answer."""
    winner = str(row.get("winner"))
    if winner not in ("model_a", "model_b"):
        raise NothingToLearn("winner")  # a tie, or both are bad
    sides = {column: messages_of(row.get(column), column) for column in ("conversation_a", "conversation_b")}
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides.values(), strict=False))]
    while shared and shared[-1]["role"] != "user":
        shared.pop()
    better, worse = sides.values() if winner == "model_a" else reversed(sides.values())
    if not shared or min(len(better), len(worse)) <= len(shared):
        raise BadRow("conversation_a and conversation_b do not begin with the same question")
    return {"prompt": shared, "chosen": [better[len(shared)]], "rejected": [worse[len(shared)]]}


def several(asked: str, answers: str, text: str, worth: str, *, rank: bool = False) -> Callable[[Row], Record]:
    """A list of answers, each with a number: UltraFeedback's ratings, or with ``rank`` Nectar's ranks from 1."""

    def read(row: Row) -> Record:
        listed = row.get(answers)
        if not isinstance(listed, Sequence) or not all(isinstance(answer, Mapping) for answer in listed):
            raise BadRow(f"{answers} is {listed!r}, expected a list of answers")
        sign = -1 if rank else 1
        rated = [Rated(answer.get(text), sign * _number(answer.get(worth), f"{answers} {worth}")) for answer in listed]
        return {"prompt": _question(row, asked), **best_and_worst(rated, answers)}

    return read


def _question(row: Row, column: str) -> list[Message]:
    asked = row.get(column)
    if isinstance(asked, Mapping):  # WebGPT's question is a record
        asked = asked.get("full_text")
    if not isinstance(asked, str) or not asked.strip():
        raise BadRow(f"{column} is {asked!r}, expected a text that is not empty")
    return [user(asked)]
