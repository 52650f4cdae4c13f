"""Preference pairs from PRISM: the best and the worst rated response of each turn, in the dialogue up to there.

A turn's chosen response is the one with the highest score, its rejected one the one with the lowest. Among equals at
the top the one that the person went on with (``if_chosen``) is taken, else the first by ``within_turn_id``. A turn
gives no pair where its best and worst scores are equal, or where fewer than two of its responses have a score and a
text ("EMPTY STRING" is none). The prompt is the turn's own after the earlier turns, each with the response that the
person went on with; an earlier turn without prompt or such a response is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, Outcome, Raw, assistant, truth, user
from valuedrift_mlflow.inputs.rows import Record, Row

EMPTY = "EMPTY STRING"


class Response(NamedTuple):
    """One response of a turn; ``text`` is empty where PRISM has none, ``score`` None where nobody gave one."""

    text: str
    score: float | None
    gone_on: bool
    place: float


@dataclass
class Turn:
    """A user's prompt and the responses to it."""

    prompt: str
    responses: list[Response] = field(default_factory=list)

    def pair(self) -> tuple[str, str, float] | None:
        """The best and the worst response, and how far apart their scores are; None where they cannot be told apart."""
        rated = [response for response in self.responses if response.text and response.score is not None]
        if len(rated) < 2 or not self.prompt:
            return None
        best = min(rated, key=lambda response: (-(response.score or 0), not response.gone_on, response.place))
        worst = min(rated, key=lambda response: (response.score or 0, response.place))
        if best.score == worst.score or best.text == worst.text:
            return None
        return best.text, worst.text, (best.score or 0) - (worst.score or 0)

    def as_context(self) -> list[Message]:
        """The turn as a later one sees it."""
        answers = [response.text for response in self.responses if response.gone_on and response.text]
        return [user(self.prompt), assistant(answers[0])] if self.prompt and answers else []


def pairs_of(turns: Iterable[Turn]) -> Iterator[Record | None]:
    """The pair of every turn of a conversation, or None."""
    context: list[Message] = []
    for turn in turns:
        pair = turn.pair()
        if pair:
            chosen, rejected, margin = pair
            yield {
                "prompt": [*context, user(turn.prompt)],
                "chosen": [assistant(chosen)],
                "rejected": [assistant(rejected)],
                "margin": margin,
            }
        else:
            yield None
        context += turn.as_context()


def from_utterances(raws: Iterable[Raw]) -> Iterator[Outcome]:
    """The pairs of ``utterances.jsonl``, in which every response is a row.

    Rows of one turn, and turns of one conversation, must stand together as they do in the published file: only one
    conversation is held at a time. A conversation that starts late, or lacks a turn, is bad data: its context is lost.
    Rows of turns without a pair count as dropped.
    """
    begins: int | None = None  # the number that first turns have: 0 in the published file
    for _, together in groupby(_utterances(raws), key=lambda entry: entry.conversation):
        turns: dict[int, list[_Utterance]] = {}
        for entry in together:
            if entry.bad:
                yield Outcome(entry.raw, bad=entry.bad)
            else:
                turns.setdefault(entry.turn, []).append(entry)
        if not turns:
            continue
        # 0 or 1, by the first conversation: one that lacks its beginning must not make its own number the rule.
        begins = min(min(turns), 1) if begins is None else begins
        numbers = sorted(turns)
        misplaced = _misplaced(numbers, begins)
        made = pairs_of(Turn(turns[n][0].prompt, [entry.response for entry in turns[n]]) for n in numbers)
        for number, pair in zip(numbers, made, strict=True):
            entries = turns[number]
            if misplaced is not None and number >= misplaced:
                missing = "an earlier turn of its conversation is missing or stands elsewhere in the file"
                for entry in entries:
                    yield Outcome(entry.raw, bad=f"turn {number}: {missing}")
            elif pair:
                yield Outcome(entries[0].raw, rows=[pair], made_from=len(entries))
            else:
                yield Outcome(entries[0].raw, dropped=len(entries))


def _misplaced(numbers: Sequence[int], begins: int) -> int | None:
    """The first turn that does not follow the one before it."""
    return next((number for place, number in enumerate(numbers, start=begins) if number != place), None)


class _Utterance(NamedTuple):
    raw: Raw
    conversation: str
    turn: int = 0
    prompt: str = ""
    response: Response = Response("", None, False, 0)
    bad: str = ""


def _utterances(raws: Iterable[Raw]) -> Iterator[_Utterance]:
    conversation = ""
    for raw in raws:
        try:
            utterance = _utterance(raw)
        except BadRow as error:
            yield _Utterance(raw, conversation, bad=str(error))  # it may belong to the conversation around it
            continue
        conversation = utterance.conversation
        yield utterance


def _utterance(raw: Raw) -> _Utterance:
    row = raw.row or {}
    conversation, prompt = row.get("conversation_id"), row.get("user_prompt")
    if not isinstance(conversation, str) or not conversation:
        raise BadRow(f"conversation_id is {conversation!r}, expected a text")
    if not isinstance(prompt, str):
        raise BadRow(f"user_prompt is {prompt!r}, expected a text")
    turn = _number(row, "turn")
    if turn is None or turn != int(turn):
        raise BadRow(f"turn is {row.get('turn')!r}, expected a whole number")
    return _Utterance(raw, conversation, int(turn), _said(prompt), _response(row, "model_response"))


def _response(row: Row, column: str) -> Response:
    text = row.get(column)
    if not isinstance(text, str):
        raise BadRow(f"{column} is {text!r}, expected a text")
    return Response(
        _said(text), _number(row, "score"), bool(truth(row.get("if_chosen"))), _number(row, "within_turn_id") or 0
    )


def _said(text: str) -> str:
    return "" if text.strip() in ("", EMPTY) else text


def _number(row: Row, column: str) -> float | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRow(f"{column} is {value!r}, expected a number") from None
    return number if number == number and abs(number) != float("inf") else None  # tables write NaN for nothing


def from_conversation(row: Row) -> list[Record]:
    """The pairs of a row of ``conversations.jsonl``, whose ``conversation_history`` has all turns.

    Raises:
        BadRow: an entry without turn, role (user, model) or text, or responses to no prompt.
        NothingToLearn: no turn gives a pair.
    """
    history = row.get("conversation_history")
    if not isinstance(history, Sequence) or isinstance(history, str) or not history:
        raise BadRow(f"conversation_history is {history!r}, expected PRISM's list of turns")
    turns: dict[float, Turn] = {}
    for entry in history:
        number = _number(entry, "turn") if isinstance(entry, Mapping) else None
        if number is None:
            raise BadRow(f"conversation_history holds {entry!r}, expected turn, role and content")
        if entry.get("role") == "user":
            if not isinstance(entry.get("content"), str):
                raise BadRow(f"content of turn {number:g} is {entry.get('content')!r}, expected a text")
            turns[number] = Turn(_said(entry["content"]))
        elif entry.get("role") == "model" and number in turns:
            turns[number].responses.append(_response(entry, "content"))
        else:
            raise BadRow(f"conversation_history holds {entry!r}, expected role user, or model after it")
    pairs = [pair for pair in pairs_of(turns[number] for number in sorted(turns)) if pair]
    if not pairs:
        raise NothingToLearn("conversation_history")
    return pairs
