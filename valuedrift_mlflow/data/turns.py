"""Which turns of a dialogue are learnt from, and where two dialogues part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, Untrained, calls_tool
from valuedrift_mlflow.inputs.rows import Record, alike


def answers(messages: Sequence[Message]) -> int:
    """How many turns are the assistant's."""
    return sum(message["role"] == "assistant" for message in messages)


def trained(messages: Sequence[Message]) -> list[int]:
    """The places of the turns to learn from: the assistant's that somebody asked for and that say something.

    A turn whose source gives it the weight 0 is none of them, nor is a call of a tool.
    """
    places, asked = [], False
    for place, message in enumerate(messages):
        asked = asked or message["role"] == "user"
        says = message["role"] == "assistant" and message["content"].strip()
        if asked and says and not isinstance(message, Untrained) and not calls_tool(message):
            places.append(place)
    return places


def runs(row: Record) -> Iterator[Record]:
    """The rows that learn every trained turn of a dialogue (``prompt`` and ``completion``) once.

    A row's completion begins with a trained answer and ends with one; users' turns between stay in it. An answer that
    is not trained ends a row: the next one has it in its prompt. So every assistant turn of a completion is trained.
    """
    messages = [*row["prompt"], *row["completion"]]
    places, spoken = trained(messages), [at for at, one in enumerate(messages) if one["role"] == "assistant"]
    begun = 0
    for end, place in enumerate(places):
        following = spoken[spoken.index(place) + 1 :][:1]
        if places[end + 1 : end + 2] != following or not following:
            yield {**row, "prompt": messages[: places[begun]], "completion": messages[places[begun] : place + 1]}
            begun = end + 1


def single(row: Record) -> Iterator[Record]:
    """A row with one answer for each assistant turn of its completion, after all that was said before it."""
    completion = row["completion"]
    for place, message in enumerate(completion):
        if message["role"] == "assistant":
            yield {**row, "prompt": [*row["prompt"], *completion[:place]], "completion": [message]}


def parted(chosen: list[Message], rejected: list[Message]) -> Record:
    """The pair of two dialogues that begin alike: what is common up to a user's message is the prompt.

    The sides are what follows, with all of their turns, as TRL's implicit prompt has them.

    Raises:
        BadRow: they do not begin with the same question, or one has no answer after it.
        NothingToLearn: an answer is empty, or the dialogues part in what a user says: there is no preference in it.
    """
    shared = alike(chosen, rejected)
    parts = [side[shared]["role"] for side in (chosen, rejected) if len(side) > shared]
    # Back to where somebody asked: an answer may be common to both sides, too.
    while shared and chosen[shared - 1]["role"] not in ("user", "tool"):
        shared -= 1
    sides = {}
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        side = list(messages[shared:])
        while side and side[-1]["role"] in ("user", "tool"):
            side.pop()  # nobody answered it
        if not shared or not side:
            different = "" if shared else ": chosen and rejected answer different prompts"
            raise BadRow(f"{name} has no answer of its own after the shared dialogue{different}")
        if calls_tool(side[-1]):
            raise BadRow(f"{name} ends with a call of a tool, expected what the assistant says to the user")
        if side[0]["role"] != "assistant":
            raise BadRow(f"{name} has no answer right after the shared dialogue")
        if not all(message["content"].strip() for message in side if message["role"] == "assistant"):
            raise NothingToLearn(name)
        sides[name] = side
    if sides["chosen"] == sides["rejected"] or "user" in parts:
        raise NothingToLearn("chosen, rejected")
    return {"prompt": chosen[:shared], **sides}
