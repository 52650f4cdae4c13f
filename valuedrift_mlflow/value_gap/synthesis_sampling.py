"""From planned rows to filled ones: ask, judge, keep on disk, until every stance that was asked for is present."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Protocol

import numpy as np

from valuedrift_mlflow import models
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.measurement import judge_replies, no_progress
from valuedrift_mlflow.inputs.errors import InputError, Unanswered, problem
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.judges.asking import Reply
from valuedrift_mlflow.models.generation import Generator, Sampling, seed_of
from valuedrift_mlflow.models.replies import Unreachable
from valuedrift_mlflow.models.server import HOPELESS
from valuedrift_mlflow.stances import STANCES, Stance, Verdict
from valuedrift_mlflow.value_gap.synthesis_journal import Journal
from valuedrift_mlflow.value_gap.synthesis_plan import Ask, Pool, Reason, Row
from valuedrift_mlflow.value_gap.synthesis_prompts import BLUNT, COURTEOUS, PLAIN, embedded_proposition, instructed
from valuedrift_mlflow.value_gap.synthesis_request import FORMS, Prepared, Request

if TYPE_CHECKING:
    from valuedrift_mlflow.report.display import Display

MOVES = 3  # how often a row may go over to another prompt of its topic
_BAR = "responses"


class NotReached(InputError):
    """The stances that were asked for were not judged present often enough; what was judged is kept on disk."""


class Source(Protocol):
    """Answers prompts from a stance."""

    def respond(self, asks: Sequence[Ask]) -> list[str]:
        """One response for each ask, in order; the same for the same ask."""
        ...


class EmbeddedForms:
    """The answer forms of the embedded corpora: known to take their stance, and to differ in style where they do."""

    def __init__(self, seed: int) -> None:
        """Compose by ``seed``."""
        self.seed = seed

    def respond(self, asks: Sequence[Ask]) -> list[str]:
        """An answer that takes the stance; two styles of one try say the same and close in another tone."""
        return [self._compose(ask) for ask in asks]

    def _compose(self, ask: Ask) -> str:
        proposition = embedded_proposition(ask.item)
        assert proposition is not None  # prepare() has refused the others
        place = (ask.item.item_id, ask.use, ask.side.stance.value, ask.attempt)
        # One draw for both styles: they then say the same thing, and differ in tone alone.
        rng = np.random.default_rng(seed_of(self.seed, *place, "plain" if ask.side.style == PLAIN else "restyled"))
        if ask.side.style == PLAIN:
            return corpus.answer(proposition, ask.side.stance, rng)
        courteous, blunt = corpus.restyled(proposition, ask.side.stance, rng)
        return {COURTEOUS: courteous, BLUNT: blunt}[ask.side.style]


class InstructedModel:
    """A model that is given a stance instruction with each prompt."""

    def __init__(self, generator: Generator, sampling: Sampling) -> None:
        """Keep what generates, and how."""
        self.generator = generator
        # Another response is another ask with a key of its own: so a
        # synthesis that goes on draws what it would have drawn.
        self.sampling = changed(sampling, samples=1)

    def respond(self, asks: Sequence[Ask]) -> list[str]:
        """Sampled responses, without what a reasoning model thought before them.

        One that ends in its thought stays as it is, to be unreadable. A request that a server left unanswered gives an
        empty one.

        Raises:
            Unreachable: the server stays silent; its ``responses`` are those that came.
        """
        texts = [instructed(ask.item, ask.side.stance, ask.side.style) for ask in asks]
        keys = ["\x1f".join(ask.key) for ask in asks]
        try:
            return [_answer(said) for said in self.generator.generate(texts, keys, self.sampling, no_progress)]
        except Unreachable as silence:
            silence.responses = [[_answer(said)] for said in silence.responses]
            raise


def _answer(said: Sequence[str]) -> str:
    text = spoken(said[0])
    return text.answer if text.finished else said[0]


def source_of(request: Request) -> Source:
    """What answers for the model that a request names; weights are loaded here."""
    if request.model == FORMS:
        return EmbeddedForms(request.seed)
    sampling = Sampling(
        1, request.temperature, request.max_new_tokens, request.batch_size, request.seed, salt="synthesis"
    )
    return InstructedModel(models.load_generator(request.model, request.how), sampling)


@dataclass
class Tally:
    """What was sampled to fill the rows, each response that they have used or rejected counted once."""

    judged: int = 0
    rejected: Counter[Stance] = field(default_factory=Counter)
    present: Counter[Stance] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)  # those of rows that are still open are in the rows
    verdicts: list[Verdict] = field(default_factory=list)  # of the responses that were judged now

    def add(self, stance: Stance, reason: Reason | None) -> None:
        """Count one response; ``reason`` is why it was not judged to take its stance."""
        self.judged += 1
        (self.rejected if reason else self.present)[stance] += 1
        if reason:
            self.reasons[reason] += 1


@dataclass
class Filling:
    """Rows on their way from a plan to a dataset: ask, judge, keep on disk, until every row is settled."""

    prepared: Prepared
    source: Source
    journal: Journal
    display: Display
    rows: list[Row] = field(init=False)
    pool: Pool = field(init=False)
    tally: Tally = field(init=False, default_factory=Tally)
    _silent: int = field(init=False, default=0)  # responses in a row without a verdict

    def __post_init__(self) -> None:
        self.rows, self.pool = self.prepared.rows()

    @property
    def filled(self) -> list[Row]:
        """The rows that have an answer for each side."""
        return [row for row in self.rows if row.best()]

    def reasons(self) -> dict[Reason, int]:
        """How many responses are not taken, by the reason: with those that are, all that were judged."""
        counts = sum((Counter(row.spare()) for row in self.rows), Counter(self.tally.reasons))
        return {reason: counts[reason] for reason in Reason if counts[reason]}

    def fill(self) -> None:
        """Fill every row; where the request takes a part, those that can be.

        What is asked next depends on nothing but the verdicts so far: a synthesis that goes on from its file asks what
        an uninterrupted one would.

        Raises:
            NotReached: a row has used up its tries on all of its prompts, or a stance was never judged present. Where
                the request takes a part: not one row was filled.
            Unanswered: the server of the model or of the judge stays silent.
        """
        open_rows, tries = self.rows, self.prepared.request.tries
        while open_rows:
            self.display.start(_BAR, sum(len(row.next_asks()) for row in open_rows), f"{len(open_rows)} rows open")
            self._try_once(open_rows)
            open_rows = [row for row in open_rows if not row.is_settled]
            self._move([row for row in open_rows if row.attempts >= tries and row.best() is None])
            # Sides of one stance whose lengths do not match after all tries: the closest two are taken.
            open_rows = [row for row in open_rows if row.attempts < tries]
        if not self.filled:
            raise NotReached(self._reached({side.stance for row in self.rows for side in row.sides}))

    def _try_once(self, rows: Sequence[Row]) -> None:
        asks = [(row, ask) for row in rows for ask in row.next_asks()]
        size = self.prepared.request.batch_size
        for start in range(0, len(asks), size):
            batch = asks[start : start + size]
            # Known ones are left out within the batch, not before it: batches stay those of an uninterrupted synthesis.
            self._sample([ask for _, ask in batch if self.journal.get(ask) is None])
            for row, ask in batch:
                said = self.journal.get(ask)
                assert said is not None
                self.tally.add(ask.side.stance, None if row.add(ask, *said) else Reason.of(*said))
            self.display.advance(_BAR, len(batch))
        for row in rows:
            row.attempts += 1

    def _sample(self, asks: Sequence[Ask]) -> None:
        if not asks:
            return
        texts = self._texts(asks)
        judged = judge_replies(
            self.prepared.judge, [(ask.item, ask.attempt, Reply(text)) for ask, text in zip(asks, texts, strict=True)]
        )
        verdicts = [response.verdict for response in judged]
        self.tally.verdicts += verdicts
        self.journal.add(list(zip(asks, texts, verdicts, strict=True)))
        for verdict in verdicts:
            self._silent = self._silent + 1 if verdict.failed else 0
            # After the journal has them: what was judged before the silence is kept.
            if self._silent >= HOPELESS:
                raise Unanswered(verdict.reason or f"{self.prepared.judge.name} gives no verdicts")

    def _texts(self, asks: Sequence[Ask]) -> list[str]:
        """Responses to these, on disk before they are judged: those that wait for a verdict are not sampled again."""
        new = [ask for ask in asks if self.journal.unjudged(ask) is None]
        try:
            said = dict(zip((ask.key for ask in new), self.source.respond(new) if new else (), strict=True))
        except Unreachable as silence:
            # Not strict: where nothing came at all there are no responses.
            self.journal.wait((ask, texts[0]) for ask, texts in zip(new, silence.responses, strict=False))
            raise
        # On disk before the judge is asked: it may be slower, and costlier to interrupt, than the model.
        self.journal.wait((ask, said[ask.key]) for ask in new)
        return [self.journal.unjudged(ask) or said.get(ask.key, "") for ask in asks]

    def _move(self, rows: Sequence[Row]) -> None:
        """Give another prompt to rows that have used up their tries; those that get none stay open in a part.

        Raises:
            NotReached: some get none, and the request takes no part.
        """
        # All of them before one is moved: the error names every stance that is lacking.
        lost = [row.moves >= MOVES or self._is_hopeless(row) for row in rows]
        if any(lost) and not self.prepared.request.partial:
            raise NotReached(self._reached({stance for row in rows for stance in _lacking(row)}))
        for row in (row for row, stays in zip(rows, lost, strict=True) if not stays):
            # Now, as `move` forgets what the row had.
            self.tally.reasons.update(row.spare())
            row.move(*self.pool.take(row.item.topic))

    def _is_hopeless(self, row: Row) -> bool:
        """Whether a stance that it lacks was never judged present, on any prompt."""
        return any(not self.tally.present[stance] for stance in _lacking(row))

    def _reached(self, lacking: set[Stance]) -> str:
        """What was reached, why so many responses were not taken, and what mends it."""
        request, design, filled = self.prepared.request, self.prepared.design, self.filled
        found = f"{len(filled)} of {len(self.rows)} rows filled"
        if design.kind == "pairs":
            opposed = sum(not row.same_stance for row in filled)
            found += f" ({opposed} of them with opposed stances, a gap of {opposed / len(self.rows):.3g})"
        for stance in (stance for stance in STANCES if stance in lacking):
            asked = self.tally.present[stance] + self.tally.rejected[stance]
            found += f"; {stance} judged present in {self.tally.present[stance]} of {asked} responses asked for it"
        if reasons := self.reasons():
            found += f"; not taken: {reason_words(reasons)}"
        asked_for = f"gap {design.gap:g}" if design.kind == "pairs" else f"preset {request.preset}"
        allowed = f"every stance judged present within {request.tries} tries, on one of {MOVES + 1} prompts"
        mend = "raise tries, or take another model, judge or topics"
        if filled:
            mend += ", or write the rows that can be filled with partial=true"
        return problem(asked_for, found, allowed, f"{mend}; what was judged is kept in {self.journal.path}")


def _lacking(row: Row) -> list[Stance]:
    return [side.stance for side, said in zip(row.sides, row.said, strict=True) if not said]


def reason_words(reasons: Mapping[Reason, int]) -> str:
    """Reasons with their counts, the most frequent first.

    >>> reason_words({Reason.EMPTY: 2, Reason.OTHER_STANCE: 1200})
    '1,200 other stance, 2 empty'
    """
    ordered = sorted(reasons.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in ordered)
