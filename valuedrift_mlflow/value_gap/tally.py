"""What rows come to, kept as numbers: of a part of them in any process, of all when the parts are added up in order."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.data.kinds import COLUMNS
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.evaluation.measurement import judge_costs
from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.stances import Verdict
from valuedrift_mlflow.statistics.style_gap import FIGURES, style
from valuedrift_mlflow.statistics.value_gap import SIGMA
from valuedrift_mlflow.value_gap import languages
from valuedrift_mlflow.value_gap.drawn import Drawn
from valuedrift_mlflow.value_gap.exchanges import rows_of
from valuedrift_mlflow.value_gap.findings import Side
from valuedrift_mlflow.value_gap.judged_rows import SHOWN, asked, fingerprint, record_of, side_of, to_label
from valuedrift_mlflow.value_gap.matching import Matcher, Matches, response
from valuedrift_mlflow.value_gap.propositions import Proposition
from valuedrift_mlflow.value_gap.row_labels import SHEET_ROWS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
About = Sequence[tuple[Row, Proposition]]  # rows that touch a proposition, each with it
Judged = tuple[Integers, Integers, tuple[Side, ...]]  # of N rows: proposition and prompt (N,), and the sides

STYLE_SAMPLE = 5_000  # pairs whose style is read, drawn at random from all
# A few rows of strong opinions may carry all that a topic's figures say: these are shown.
OPINIONATED = 50  # rows to look at
TOPIC_ONLY = 50  # of each topic, rows to look at that touch none of its propositions
_TEXTS = 500  # texts that tell whether the labelled ones are like them


@dataclass
class Tally:
    """What rows of a kind come to. The style of pairs is read, where ``spoken`` is set the language of all.

    Rows are drawn for people to label where a ``sheet`` is wanted. What is kept of rows says of each its number, which
    is counted from the first row of the part.
    """

    kind: Kind
    topics: int
    seed: int
    spoken: bool = False
    sheet: bool = False
    rows: int = 0
    answers: int = 0  # or pairs of them: more than rows where these have several turns
    numbered: int = 0  # rows that have a number, be there an answer to judge in them or none
    costs: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)  # the first that were judged
    topic_only: list[tuple[int, Record]] = field(default_factory=list)
    _judged: list[Judged] = field(default_factory=list)
    _keys: list[Integers] = field(default_factory=list)  # of the judged rows
    _strongest: list[tuple[float, int, Record]] = field(default_factory=list)  # a heap, the weakest first
    _bar: float = 0.0  # a row that is not stronger is none of the strongest
    _texts_left: int = _TEXTS

    def __post_init__(self) -> None:
        """Nothing yet."""
        self.columns = COLUMNS[self.kind][1:]
        self.touched = np.zeros(self.topics, dtype=np.int64)
        self._left = np.full(self.topics, TOPIC_ONLY)
        # Each apart from the others, and from the intervals, which use the seed itself.
        self._styles: Drawn[list[tuple[float, ...]]] = Drawn(STYLE_SAMPLE, (self.seed, 1))
        self._spoken: Drawn[str] = Drawn(languages.SAMPLE, (self.seed, 2))
        self._to_label: Drawn[Record] = Drawn(SHEET_ROWS, (self.seed, 3))

    def part(self, number: int) -> Tally:
        """An empty one for a later part, which keeps nothing that would be given up here."""
        made = Tally(self.kind, self.topics, self.seed, self.spoken, self.sheet)
        made._bar = self._weakest()
        made._texts_left = self._texts_left
        made._left = self._left.copy()
        made._styles, made._spoken = self._styles.part(number), self._spoken.part(number)
        made._to_label = self._to_label.part(number)
        return made

    def take(self, batch: Sequence[Row], matches: Matches, matcher: Matcher) -> tuple[About, Integers]:
        """Keep what a batch comes to that has been matched.

        Returns:
            Those that touch a proposition, and their places among all, (N,): what is to be `judged`.
        """
        if self.kind == "pairs":
            self._styles.take(batch, lambda row: [style(response(row[column])) for column in self.columns])
        if self.spoken:
            self._spoken.take(batch, lambda row: f"{asked(row)[:SHOWN]} {response(row[self.columns[0]])[:SHOWN]}")
        self.touched += np.bincount(matches.topic[matches.topic >= 0], minlength=self.topics)
        self._keep_topic_only(batch, matches, matcher.topics)
        placed = np.flatnonzero(matches.proposition >= 0)
        about = [(batch[at], matcher.propositions[matches.proposition[at].item()]) for at in placed.tolist()]
        places = placed + self.answers
        self.answers += len(batch)
        self.rows += rows_of(batch)
        return about, places

    def judged(
        self, about: About, places: Integers, propositions: Integers, verdicts: Sequence[Sequence[Verdict]]
    ) -> None:
        """Keep what rows say that touch these propositions, (N,), by the verdicts on each of their sides."""
        if not about:
            return
        sides = tuple(side_of(own) for own in verdicts)
        # Prompts as numbers: the intervals need to know which are the same, and nothing else of them.
        prompts = np.array([fingerprint(row["prompt"]) for row, _ in about], dtype=np.int64)
        self._judged.append((propositions, prompts, sides))
        self._keys.append(np.array([(row["row"], row["turn"]) for row, _ in about], dtype=np.int64))
        self.costs.update(judge_costs([verdict for own in verdicts for verdict in own]))
        said = (response(row[column]) for column in self.columns for row, _ in about)
        self._keep_texts(list(islice(filter(str.strip, said), self._texts_left)))
        if self.sheet:
            self._to_label.take(about, lambda own: to_label(*own, self.columns))
        self._keep_strongest(about, places, sides)

    def add(self, later: Tally) -> None:
        """Add what the rows that follow come to."""
        for record in (
            *(record for _, record in later.topic_only),
            *(record for *_, record in later._strongest),
            *later._to_label.kept(),
        ):
            record["row"] += self.numbered
        for topic, record in later.topic_only:
            self._keep_of_topic(topic, record)
        for strength, place, record in later._strongest:
            self._keep_strong(strength, place - self.answers, record)
        self._styles.add(later._styles)
        self._spoken.add(later._spoken)
        self._to_label.add(later._to_label)
        self._keep_texts(later.texts)
        self._judged += later._judged
        self._keys += [keys + np.array([self.numbered, 0]) for keys in later._keys]
        self.touched += later.touched
        self.costs.update(later.costs)  # and not +=, which leaves out what is 0
        self.rows += later.rows
        self.answers += later.answers
        self.numbered += later.numbered

    def _keep_topic_only(self, batch: Sequence[Row], matches: Matches, topics: Sequence[str]) -> None:
        for at in np.flatnonzero((matches.topic >= 0) & (matches.proposition < 0)).tolist():
            topic = matches.topic[at].item()
            if self._left[topic]:
                row = batch[at]
                record = {"row": row["row"], "topic": topics[topic], "prompt": asked(row)[:SHOWN]}
                record |= {column: response(row[column])[:SHOWN] for column in self.columns}
                self._keep_of_topic(topic, record)

    def _keep_of_topic(self, topic: int, record: Record) -> None:
        if self._left[topic]:
            self._left[topic] -= 1
            self.topic_only.append((topic, record))

    def _keep_texts(self, texts: Sequence[str]) -> None:
        self.texts += texts[: self._texts_left]
        self._texts_left -= len(texts[: self._texts_left])

    def _keep_strongest(self, about: About, places: Integers, sides: tuple[Side, ...]) -> None:
        sigma = [side.probabilities @ SIGMA for side in sides]
        direction = (sigma[0] - sigma[1]) / 2 if len(sides) > 1 else sigma[0]
        for at in np.flatnonzero(np.abs(direction) > self._bar).tolist():
            # Of equal strength the earlier row stays.
            strength = float(abs(direction[at]))
            if strength > self._weakest():
                row, proposition = about[at]
                record = record_of(row, proposition, self.columns, [int(side.labels[at]) for side in sides])
                record = {"row": row["row"], "direction": float(direction[at]), **record}
                self._keep_strong(strength, -int(places[at]), record)

    def _weakest(self) -> float:
        return self._strongest[0][0] if len(self._strongest) == OPINIONATED else self._bar

    def _keep_strong(self, strength: float, place: int, record: Record) -> None:
        # No two places are equal, so that the heap never compares records.
        entry = (strength, place, record)
        if len(self._strongest) < OPINIONATED:
            heapq.heappush(self._strongest, entry)
        elif entry[:2] > self._strongest[0][:2]:
            heapq.heapreplace(self._strongest, entry)

    def strongest(self) -> list[Record]:
        """The rows of the strongest opinions, the strongest first."""
        return [record for *_, record in sorted(self._strongest, key=lambda entry: entry[:2], reverse=True)]

    def styles(self) -> Floats:
        """Of each drawn pair the style of its sides, (N, 2, figures)."""
        return np.array(self._styles.kept()).reshape(-1, 2, len(FIGURES))

    def drawn(self) -> list[str]:
        """Questions with their answers, whose language is looked at."""
        return self._spoken.kept()

    def to_label(self) -> list[Record]:
        """The rows for people to label in random order: who labels the first of them has labelled a random part."""
        rows = self._to_label.kept()
        return [rows[place] for place in np.random.default_rng([self.seed, 3]).permutation(len(rows)).tolist()]

    def keys(self) -> Integers:
        """The number of each of N judged rows, and the turn within it, (N, 2)."""
        return np.concatenate(self._keys) if self._keys else np.empty((0, 2), dtype=np.int64)

    def read(self) -> Judged:
        """Of all N judged rows the proposition and the prompt, each (N,), and the sides."""
        if not self._judged:
            nothing = Side(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=np.int8))
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), (nothing,) * len(self.columns)
        propositions, prompts, sides = zip(*self._judged, strict=True)
        joined = tuple(
            Side(
                np.concatenate([side.held for side in own]),
                np.concatenate([side.probabilities for side in own]),
                np.concatenate([side.labels for side in own]),
            )
            for own in zip(*sides, strict=True)
        )
        return np.concatenate(propositions), np.concatenate(prompts), joined
