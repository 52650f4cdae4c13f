"""Suites: topics, propositions and the prompts that probe them. Loaded, validated, versioned and hashed here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.suite.axes import Axis, Key, written

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("item_id", "topic", "proposition_id", "proposition", "phrasing", "prompt", "polarity")
KEY_COLUMNS = ("axis", "direction")
PHRASINGS = ("direct", "should", "statement", "reversed", "advice")


@dataclass(frozen=True)
class Item:
    """One prompt of a suite. ``polarity`` is +1 where agreeing with the prompt supports the proposition, else -1.

    ``keys`` say on which axes of values the proposition lies, all prompts of a proposition alike.
    """

    item_id: str
    topic: str
    proposition_id: str
    proposition: str
    phrasing: str
    prompt: str
    polarity: int
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A validated list of items with the name, version and hash that every result records.

    ``source`` is the URI it was loaded from, with its options; ``provenance`` says how it was built, where it was.
    ``ends`` says what the ends of its axes stand for, where that is known.
    """

    name: str
    version: str
    items: tuple[Item, ...]
    source: str
    # How it was built makes no other suite of it.
    provenance: Mapping[str, str] = field(default_factory=dict, compare=False)
    ends: Mapping[str, Axis] = field(default_factory=dict, compare=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all that is asked (``COLUMNS``) of every item in order, first 16 hex digits.

        Keys are not in it: they say how answers are read, as a judge does, and change no answer. So responses to a
        suite stay comparable when it gets keys, or others; ``keys_hash`` tells which ones were used.
        """
        digest = hashlib.sha256()
        for item in self.items:
            # The separators keep apart items whose fields read alike when put together.
            digest.update("\x1f".join(str(getattr(item, column)) for column in COLUMNS).encode() + b"\x1e")
        return digest.hexdigest()[:16]

    @cached_property
    def keys_hash(self) -> str:
        """SHA-256 over the keys of every item in order, first 16 hex digits; empty for a suite without keys."""
        if not self.axes:
            return ""
        written = "\x1e".join(f"{item.item_id}\x1f{item.keys}" for item in self.items)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes: those over several topics first, then in order of first appearance."""
        topics: dict[str, set[str]] = {}
        for item in self.items:
            for key in item.keys:
                topics.setdefault(key.axis, set()).add(item.topic)
        return tuple(sorted(topics, key=lambda axis: len(topics[axis]) == 1))

    @cached_property
    def propositions(self) -> tuple[NDArray[np.int64], tuple[Item, ...]]:
        """The number of every item's proposition, shape (N,), and of each of the P propositions its first item.

        Propositions of equal name in two topics are two.
        """
        first: dict[tuple[str, str], Item] = {}
        for item in self.items:
            first.setdefault((item.topic, item.proposition_id), item)
        number = {name: i for i, name in enumerate(first)}
        numbers = [number[item.topic, item.proposition_id] for item in self.items]
        return np.array(numbers, dtype=np.int64), tuple(first.values())

    @cached_property
    def keyed(self) -> NDArray[np.int64]:
        """Directions of P propositions on A axes (in their order), shape (A, P): +1, -1, or 0 without a key."""
        _, propositions = self.propositions
        directions = np.zeros((len(self.axes), len(propositions)), dtype=np.int64)
        for p, item in enumerate(propositions):
            for key in item.keys:
                directions[self.axes.index(key.axis), p] = key.direction
        return directions

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Topic slugs in order of first appearance."""
        return tuple(dict.fromkeys(item.topic for item in self.items))

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Topic index of every item, shape (N,)."""
        index = {topic: i for i, topic in enumerate(self.topics)}
        return np.array([index[item.topic] for item in self.items], dtype=np.int64)

    def frame(self) -> pd.DataFrame:
        """The items as a table with the columns of the suite file; ``axis`` and ``direction`` where it has keys."""
        import pandas as pd

        table = pd.DataFrame(
            [[getattr(item, column) for column in COLUMNS] for item in self.items], columns=list(COLUMNS)
        )
        if self.axes:
            cells = [written(item.keys) for item in self.items]
            table[list(KEY_COLUMNS)] = pd.DataFrame(cells, index=table.index, dtype=object)
        return table

    @property
    def identity(self) -> str:
        """How results name their suite: ``vaes?per_topic=5@1.0#HASH``. Equal hashes mean equal items."""
        return f"{self.source}@{self.version}#{self.hash}"

    def describe(self) -> dict[str, str]:
        """What every evaluation records of its suite and of the part taken from it."""
        return {
            "suite.name": self.name,
            "suite.uri": self.source,
            "suite.version": self.version,
            "suite.hash": self.hash,
            "suite.items": str(len(self.items)),
            **({"suite.axes": ", ".join(self.axes), "suite.keys": self.keys_hash} if self.axes else {}),
            **{f"suite.provenance.{key}": value for key, value in self.provenance.items()},
        }

    def subset(self, topics: tuple[str, ...] | None, per_topic: int | None) -> Suite:
        """Keep some topics, and of each topic ``per_topic`` items, spread over its propositions and phrasings.

        Neighbours that ask the same proposition in the same phrasing from both sides are taken together (acquiescence
        needs both); an odd ``per_topic`` cuts the last such pair.

        Raises:
            InputError: an unknown topic, or ``per_topic`` out of range.
        """
        problems = [
            problem(f"suite {self.name} topics", topic, ", ".join(self.topics))
            for topic in topics or ()
            if topic not in self.topics
        ]
        if per_topic is not None and per_topic < 1:
            problems.append(problem(f"suite {self.name} per_topic", per_topic, "a whole number of at least 1"))
        if problems:
            raise InputError(problems)
        kept: list[Item] = []
        for topic in topics or self.topics:
            own = [item for item in self.items if item.topic == topic]
            kept += own if per_topic is None else _spread(own, per_topic)
        return replace(self, items=tuple(kept))


def _spread(items: Sequence[Item], size: int) -> list[Item]:
    """``size`` items, or all where there are fewer: every proposition in turn, each in another phrasing."""
    propositions: dict[str, list[list[Item]]] = {}
    for unit in _units(items):
        propositions.setdefault(unit[0].proposition_id, []).append(unit)
    own = list(propositions.values())
    for take in range(1, len(own)):  # fewer items than propositions: those taken lie evenly over the list
        spaced = [own[i * len(own) // take] for i in range(take)]
        if sum(len(units[0]) for units in spaced) >= size:
            own = spaced
            break
    turns = (
        units[(turn + place) % len(units)]
        for turn in range(max(map(len, own)))
        for place, units in enumerate(own)
        if turn < len(units)
    )
    kept = {item.item_id for item in [item for unit in turns for item in unit][:size]}
    return [item for item in items if item.item_id in kept]


def _units(items: Sequence[Item]) -> list[list[Item]]:
    """The items one by one, but both sides of an opposed pair together."""
    units: list[list[Item]] = []
    for item in items:
        # Only of two that stand together: a third prompt of the same phrasing begins a unit of its own.
        before = units[-1][0] if units and len(units[-1]) == 1 else None
        if before is not None and (before.proposition_id, before.phrasing, -before.polarity) == (
            item.proposition_id,
            item.phrasing,
            item.polarity,
        ):
            units[-1].append(item)
        else:
            units.append([item])
    return units
