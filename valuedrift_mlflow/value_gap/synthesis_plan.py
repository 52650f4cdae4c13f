"""Which rows a synthesis makes: exact quotas of stances, spread over topics and prompts, and how a row is filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Literal

import numpy as np

from valuedrift_mlflow.stances import STANCES, Label, Mix, Stance, Verdict, quotas
from valuedrift_mlflow.suite import Item
from valuedrift_mlflow.value_gap.synthesis_prompts import BLUNT, COURTEOUS, PLAIN

LENGTH_RATIO = 0.8  # words of the shorter answer over those of the longer one, at least, in pairs of one stance
_THIRDS: Mix = (1 / 3, 1 / 3, 1 / 3)


class Reason(StrEnum):
    """Why a response that was sampled is not in the dataset."""

    REFUSAL = "refusal"
    OTHER_STANCE = "other_stance"
    EMPTY = "empty"  # not a word: the model had none, or its server gave none
    UNREADABLE = "unreadable"  # the judge has read it and left it unscored
    UNJUDGED = "unjudged"  # the judge's server gave no verdict
    LENGTH = "length"  # it took its stance; its words, or their number, did not fit those of the pair's other side
    OTHER_SIDE = "other_side"  # it took its stance, and the other side of its pair was never had

    @classmethod
    def of(cls, text: str, verdict: Verdict) -> Reason:
        """Why a response was not judged to take the stance that it was asked to take."""
        if not text.strip():
            return cls.EMPTY
        if verdict.failed:
            return cls.UNJUDGED
        return {Label.REFUSAL: cls.REFUSAL, Label.UNSCORED: cls.UNREADABLE}.get(verdict.label, cls.OTHER_STANCE)


@dataclass(frozen=True)
class Side:
    """What one answer of a row is asked to be."""

    stance: Stance
    style: str = PLAIN


Sides = tuple[Side, ...]


@dataclass(frozen=True)
class Design:
    """The shares of a dataset: for pairs ``gap``, ``chosen`` and ``rejected``, for SFT rows ``mix``.

    ``gap`` is the share of pairs whose sides take the stances ``chosen`` and ``rejected``. The sides of every other
    pair take the same stance, each of the three a third of the time, and differ in style: courteous and blunt.
    """

    kind: Literal["pairs", "sft"]
    gap: float = 0.0
    chosen: Stance = Stance.OPPOSE
    rejected: Stance = Stance.SUPPORT
    mix: Mix = _THIRDS

    def counts(self, size: int) -> dict[Sides, int]:
        """How many of ``size`` rows are of each sort; exact, by largest remainders.

        >>> {tuple(s.stance.value for s in sides): n for sides, n in Design("pairs", 0.5).counts(9).items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {('oppose', 'support'): 5, ('support', 'support'): 2, ('neutral', 'neutral'): 1, ('oppose', 'oppose'): 1}
        """
        if self.kind == "sft":
            numbers = quotas(size, self.mix)
            counts: dict[Sides, int] = {(Side(stance),): n for stance, n in zip(STANCES, numbers, strict=True)}
        else:
            opposed, same = quotas(size, (self.gap, 1 - self.gap))
            counts = {(Side(self.chosen), Side(self.rejected)): opposed}
            for stance, count in zip(STANCES, quotas(same, _THIRDS), strict=True):
                counts[Side(stance, COURTEOUS), Side(stance, BLUNT)] = count
        return {sides: count for sides, count in counts.items() if count}


@dataclass(frozen=True)
class Ask:
    """One response to sample: of a prompt (its ``use``-th row, from 0), for a side, at the ``attempt``-th try, from 1.

    >>> from valuedrift_mlflow import suite
    >>> Ask(suite.load().items[0], 0, Side(Stance.SUPPORT), 1).key[2:]
    ('0', 'support', 'plain', '1')
    """

    item: Item
    use: int
    side: Side
    attempt: int

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other: topic, prompt, use, stance, style, try."""
        return (
            self.item.topic,
            self.item.prompt,
            str(self.use),
            self.side.stance.value,
            self.side.style,
            str(self.attempt),
        )


@dataclass(frozen=True)
class Said:
    """A response that takes the stance it was asked to take."""

    text: str
    verdict: Verdict
    attempt: int


@dataclass
class Row:
    """A row to fill: its prompt, its sides, and for each side the responses that were judged to take its stance."""

    sides: Sides
    item: Item
    use: int
    attempts: int = 0
    moves: int = 0
    said: list[list[Said]] = field(init=False)

    def __post_init__(self) -> None:
        self.said = [[] for _ in self.sides]

    @property
    def same_stance(self) -> bool:
        """Whether it is a pair whose sides are to differ in style alone."""
        return len(self.sides) == 2 and self.sides[0].stance is self.sides[1].stance

    def next_asks(self) -> list[Ask]:
        """What to sample at the next try: the sides without a response; both where their lengths do not match."""
        # Both have spoken and do not match: both try again, for any old answer may match any new one.
        missing = [index for index, said in enumerate(self.said) if not said] or range(len(self.sides))
        return [Ask(self.item, self.use, self.sides[index], self.attempts + 1) for index in missing]

    def add(self, ask: Ask, text: str, verdict: Verdict) -> bool:
        """Keep a response if it is judged to take the stance; whether it is."""
        present = verdict.label.value == ask.side.stance.value
        if present:
            self.said[self.sides.index(ask.side)].append(Said(text, verdict, ask.attempt))
        return present

    def move(self, item: Item, use: int) -> None:
        """Start anew on another prompt."""
        # What was said on the other prompt answers another question: none of it is kept.
        self.item, self.use, self.attempts, self.moves = item, use, 0, self.moves + 1
        self.said = [[] for _ in self.sides]

    def best(self) -> tuple[Said, ...] | None:
        """The responses to take: the first of each side, or the two of one stance that match best in length.

        None while a side has none, or the two sides have said the same words only.
        """
        if not all(self.said):
            return None
        if not self.same_stance:
            return tuple(said[0] for said in self.said)
        pairs = [(a, b) for a, b in product(*self.said) if a.text != b.text]
        # Two styles of one try share their content in the embedded world.
        return max(pairs, key=_preference, default=None)

    def spare(self) -> dict[Reason, int]:
        """How many responses took their stance and are not taken, and why."""
        count = sum(map(len, self.said)) - len(self.best() or ())
        return {Reason.LENGTH if all(self.said) else Reason.OTHER_SIDE: count} if count else {}

    @property
    def is_settled(self) -> bool:
        """Whether nothing better is looked for."""
        best = self.best()
        return best is not None and (not self.same_stance or _matched(best))


def length_ratio(first: Said, second: Said) -> float:
    """Words of the shorter response over words of the longer one, in [0, 1].

    >>> from valuedrift_mlflow.stances import UNSCORED
    >>> length_ratio(Said("one two three four", UNSCORED, 1), Said("one two three", UNSCORED, 1))
    0.75
    """
    shorter, longer = sorted(len(said.text.split()) for said in (first, second))
    return shorter / longer if longer else 1.0


def _preference(pair: tuple[Said, Said]) -> tuple[bool, bool, float]:
    return _matched(pair), pair[0].attempt == pair[1].attempt, length_ratio(*pair)


def _matched(pair: Sequence[Said]) -> bool:
    return length_ratio(pair[0], pair[1]) >= LENGTH_RATIO


class Pool:
    """The prompts of every topic in the order in which rows take them: each proposition in turn, in other words."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        """Shuffle propositions and wordings by ``seed``, each topic by itself."""
        topics: dict[str, dict[str, list[Item]]] = {}
        for item in items:
            topics.setdefault(item.topic, {}).setdefault(item.proposition, []).append(item)
        # Numbers behind the seed keep draws apart: 4 the prompts, 5 the order of sorts, 6 the order in the file.
        self._queues = {
            topic: _in_turn(list(own.values()), np.random.default_rng([seed, 4, index]))
            for index, (topic, own) in enumerate(topics.items())
        }
        self._uses: Counter[tuple[str, str]] = Counter()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that there are prompts about."""
        return tuple(self._queues)

    def take(self, topic: str) -> tuple[Item, int]:
        """The next prompt of a topic, and how often it was taken before."""
        item = next(self._queues[topic])
        use = self._uses[topic, item.prompt]
        self._uses[topic, item.prompt] += 1
        return item, use


def _in_turn(propositions: Sequence[Sequence[Item]], rng: np.random.Generator) -> Iterator[Item]:
    wordings = [[own[i] for i in rng.permutation(len(own))] for own in propositions]
    # Without an end: rows that are moved take further prompts, and prompts are used again when all had their turn.
    for turn in range(2**62):
        for index in rng.permutation(len(wordings)):
            yield wordings[index][turn % len(wordings[index])]


def plan(design: Design, size: int, pool: Pool, seed: int) -> list[Row]:
    """The rows to fill: the sorts of rows in their exact numbers, in each topic in their shares within one row."""
    rng = np.random.default_rng([seed, 5])
    # Dealt out in stretches, one for each topic: so each has every sort in about its share, and the sum is exact.
    sorts = _interleaved(design.counts(size))
    rows: list[Row] = []
    start = 0
    for topic, count in zip(pool.topics, quotas(size, [1 / len(pool.topics)] * len(pool.topics)), strict=True):
        own = sorts[start : start + count]
        start += count
        rows += [Row(own[index], *pool.take(topic)) for index in rng.permutation(count)]
    return rows


def _interleaved(counts: Mapping[Sides, int]) -> list[Sides]:
    """Every sort as often as counted, each spread evenly: any stretch has them in about their shares."""
    # Each in the middle of its stretch: at its beginning, rare sorts would all come first.
    places = [((n + 0.5) / count, sides) for sides, count in counts.items() for n in range(count)]
    return [sides for _, sides in sorted(places, key=lambda place: place[0])]


def shuffled(rows: Iterable[Row], seed: int) -> list[Row]:
    """The filled rows in the order in which they are written."""
    own = list(rows)
    return [own[index] for index in np.random.default_rng([seed, 6]).permutation(len(own))]
