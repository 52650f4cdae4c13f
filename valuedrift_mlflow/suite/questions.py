"""The propositions of the built-in suite with the words to ask and to argue about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from valuedrift_mlflow.suite import tables


@dataclass(frozen=True)
class Proposition:
    """A proposition of the suite with the words to ask and to argue about it."""

    proposition_id: str
    topic: str
    text: str
    act: str
    pro: tuple[str, ...]
    con: tuple[str, ...]
    asked: tuple[str, ...]
    asked_reversed: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The proposition as a clause that follows "that"."""
        return self.text[0].lower() + self.text[1:].rstrip(".")


@cache
def propositions() -> tuple[Proposition, ...]:
    """The 110 propositions in the suite's order."""
    # Topic and text come from the suite itself, so that the two files cannot say different things.
    items = {item.proposition_id: item for item in tables.built_in().items}
    lines = files("valuedrift_mlflow").joinpath("suite/propositions.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Proposition(
            proposition_id=record["proposition_id"],
            topic=items[record["proposition_id"]].topic,
            text=items[record["proposition_id"]].proposition,
            act=record["act"],
            pro=tuple(record["pro"]),
            con=tuple(record["con"]),
            asked=tuple(record["asked"]),
            asked_reversed=tuple(record["asked_reversed"]),
        )
        for record in map(json.loads, lines)
    )
