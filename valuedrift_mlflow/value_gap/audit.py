"""What will these data do to values? The stances of a dataset and, of pairs, their value gap.

Rows are read one batch after another and matched with the topics and propositions of a suite (`matching`); those that
touch a proposition are judged, because a stance is a stance on something. What is kept of a row are a few numbers, so
memory hardly grows with the rows.
"""

from __future__ import annotations

import gc
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data import shown
from valuedrift_mlflow.data.datasets import COLUMNS, Digest, Kind, Stream, TrainingData, stream
from valuedrift_mlflow.data.settings import Data, Turns
from valuedrift_mlflow.evaluation import recorded, reliability
from valuedrift_mlflow.evaluation.measurement import judge_costs
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.judges import asking
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.statistics.adjusted_gap import adjusted_gap
from valuedrift_mlflow.statistics.intervals import share
from valuedrift_mlflow.statistics.style_gap import FIGURES, style, style_gap
from valuedrift_mlflow.statistics.value_gap import SIGMA, mean_distribution, value_gap
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap import languages
from valuedrift_mlflow.value_gap.exchanges import batches, remembered, rows_of
from valuedrift_mlflow.value_gap.expectation import expectation
from valuedrift_mlflow.value_gap.findings import Audit, Findings, Side
from valuedrift_mlflow.value_gap.judged_rows import SHOWN, Sheet, asked, fingerprint, record_of, side_of
from valuedrift_mlflow.value_gap.matching import Matcher, Matches, response
from valuedrift_mlflow.value_gap.propositions import Proposition
from valuedrift_mlflow.value_gap.read_rows import ReadRows, read_rows
from valuedrift_mlflow.value_gap.row_labels import (
    SHEET,
    Key,
    RowLabels,
    check_row_labels,
    labelled_figures,
    load_row_labels,
)
from valuedrift_mlflow.value_gap.spark import Engine, engine_of

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
STYLE_SAMPLE = 5_000  # pairs whose style is read, drawn at random from all
# A few rows of strong opinions may carry all that a topic's figures say: these are shown.
OPINIONATED = 50  # rows to look at
TOPIC_ONLY = 50  # of each topic, rows to look at that touch none of its propositions
_TEXTS = 500  # texts that tell whether the labelled ones are like them
_EMBEDDED = "embedded:"  # data with planted stances, which tell how right the judge is there


DISCOVER = "discover"  # as topics: those of the data itself


@dataclass(frozen=True)
class Prepared:
    """An audit that has been checked and may start."""

    data: Stream | TrainingData
    judge: Judge
    suite: Suite
    matcher: Matcher
    labels: RowLabels | None = None
    engine: Engine = "local"


def audit(
    data: Data | str | TrainingData,
    judge: Judge | str = AUTO,
    suite: Suite | str = suites.BUILT_IN,
    *,
    embedder: str = "",
    labels: str = "",
    engine: str = "local",
    seed: int = 0,
) -> Audit:
    """Audit a dataset; metrics, tables, figures and report go to a run of their own (nested where one is active).

    ``value_gap/...`` are the figures of `value_gap.value_gap`, from the stances that responses take. Coverage is the
    share of rows that touch a topic; stances are read in those that touch one of its propositions, and everything else
    is about these, except the style gap, which is of all pairs (of 5,000 drawn at random where there are more).

    Args:
        data: preference pairs, answers or labelled answers (those labelled good count), by URI or loaded.
        judge: who reads stances, by URI or loaded.
        suite: the topics and propositions, by URI or loaded.
        embedder: a transformers encoder that finds the rows that touch a topic; by their words where it is empty.
        labels: people's labels of some of the rows: a file, such as the sheet that an audit leaves (``to_label.csv``).
        engine: where rows are matched and judged: ``local``, or ``spark`` (extra ``spark``), in the session that is
            there or one in local mode.
        seed: fixes the intervals and the sample of pairs whose style is read.

    Raises:
        InputError: bad data, an unknown judge, suite, encoder or engine, or the judge ``likelihood``, which reads no
            responses.
    """
    audited = run(prepare(data, judge, suite, embedder, labels=labels, engine=engine), seed=seed)
    reliability.warn(audited.trust)
    return audited


def prepare(
    data: Data | str | TrainingData,
    judge: Judge | str,
    suite: Suite | str = suites.BUILT_IN,
    embedder: str = "",
    *,
    turns: Turns = "all",
    labels: str = "",
    engine: str = "local",
) -> Prepared:
    """Check everything that an audit needs before it computes. ``turns`` are those that a training would learn from.

    Rows that people have labelled are looked up in the data.

    Raises:
        InputError: as ``audit``; every problem at once.
    """
    with collecting() as problems:
        where = problems.attempt(engine_of, engine)
        asked = problems.attempt(suites.load, suite) if isinstance(suite, str) else suite
        # A judge that asks a model itself cannot read rows.
        reader = problems.attempt(lambda: asking.reader(_judge(judge, data)))
        source = problems.attempt(_source, data, turns)
        matcher = problems.attempt(Matcher, asked, embedder) if asked is not None else None
        given = problems.attempt(load_row_labels, labels, _columns(source.kind)) if labels and source else None
    # None of them is None here: what could not be had has been raised.
    assert asked and where and reader is not None and source is not None and matcher is not None
    if given is not None:
        check_row_labels(given, source.rows if isinstance(source, TrainingData) else source, matcher)
    return Prepared(source, reader, asked, matcher, given, where)


def _columns(kind: Kind) -> tuple[str, ...]:
    return tuple(COLUMNS["pairs" if kind == "pairs" else "sft"][1:])


def _judge(judge: Judge | str, data: Data | str | TrainingData) -> Judge:
    return judges.load(judge, embedded=_uri(data).startswith(_EMBEDDED)) if isinstance(judge, str) else judge


def _uri(data: Data | str | TrainingData) -> str:
    return data if isinstance(data, str) else data.uri


def first_rows(prepared: Prepared, count: int) -> list[Row]:
    """The first rows of an audit's data, as they were read.

    Raises:
        InputError: rows that cannot be read, where there are fewer rows than that.
    """
    data = prepared.data
    return list(islice(data.rows if isinstance(data, TrainingData) else data, count))


def _source(data: Data | str | TrainingData, turns: Turns) -> Stream | TrainingData:
    if isinstance(data, TrainingData):
        source: Stream | TrainingData = data
    else:
        source = stream(Data(uri=data) if isinstance(data, str) else data, turns=turns)
    if source.kind == "prompts":
        raise InputError(problem(f"data {source.uri}", "prompts alone", "responses: pairs, answers, labelled answers"))
    return source


def run(
    prepared: Prepared,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
    begun: str | None = None,
) -> Audit:
    """Run a prepared audit and log it, to the run ``begun`` of the same audit where an earlier process left one.

    Raises:
        InputError: rows that cannot be read.
    """
    from valuedrift_mlflow.report.page import drawn
    from valuedrift_mlflow.report.plots import color_of
    from valuedrift_mlflow.value_gap.report import audit_figures, audit_html, audit_note

    data = prepared.data
    parameters = {"data": data.uri, "format": data.format, "judge": prepared.judge.name}
    if isinstance(data, TrainingData):
        parameters["data.digest"] = data.digest()  # of what was read: other settings of the same data give other rows
    name = f"audit · {shown.called(data.uri)}"[:250]  # all that MLflow keeps of one
    parameters |= prepared.matcher.describe() | ({"engine": prepared.engine} if prepared.engine != "local" else {})
    named = {"audited": data.uri, "audited.digest": parameters.get("data.digest", "")}
    with tracking.run(
        "audit", name=name, parameters=parameters, color=color_of(data.uri), run_id=begun, named=named
    ) as active:
        recorded.log_suite(active, prepared.suite)
        first, digest = list[Row](), Digest()
        rows = remembered(digest.passing(data.rows if isinstance(data, TrainingData) else data), first)
        real = not data.uri.startswith(_EMBEDDED)
        audited = examine(
            rows,
            data.kind,
            prepared.judge,
            prepared.matcher,
            seed=seed,
            progress=progress,
            real=real,
            labels=prepared.labels,
            engine=prepared.engine,
        )
        spoken = languages.UNKNOWN if audited.languages is None else audited.languages.line()
        about = (shown.line(data), *([spoken] if real else []), *(text for row in first for text in shown.seen(row)))
        audited = replace(audited, about=about, data=data.uri, suite=prepared.suite.identity, run_id=active.run_id)
        recorded.log_audited_data(active, data.uri, data.format, str(digest))
        tracking.log_text(active, "\n".join(about), "data.txt")
        counts = data if isinstance(data, TrainingData) else data.counts
        lost = {"data/bad_rows": float(counts.bad), "data/dropped_rows": float(counts.dropped)}
        tracking.log_metrics(active, audited.metrics() | {key: rows for key, rows in lost.items() if rows}, 0)
        for table, frame in audited.tables().items():
            tracking.log_table(active, frame, f"{table}.json")
        if audited.opinionated:
            tracking.log_table(active, _frame(audited.opinionated), "opinionated.json")
        if audited.sheet:
            tracking.log_text(active, _frame(audited.sheet).to_csv(index=False), SHEET)
        if audited.topic_only:
            tracking.log_table(active, _frame(audited.topic_only), "topic_only.json")
        pictures = drawn(audit_figures(audited))
        tracking.log_figures(active, pictures)
        tracking.log_text(active, audit_html(audited, pictures), "report.html")
        tracking.describe(active, audit_note(audited))
    return audited


def _frame(records: Sequence[Row]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(records))


def examine(
    rows: Iterable[Row],
    kind: Kind,
    judge: Judge,
    matcher: Matcher,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
    real: bool = False,
    labels: RowLabels | None = None,
    engine: Engine = "local",
) -> Audit:
    """Audit normalised rows without logging anything; see `audit`.

    ``progress`` is given the number of rows of every batch. A source of no rows gives an audit of none. The judge on
    ``real`` texts is checked against labelled ones, and its errors there are taken off the gap.
    """
    reader = _Reader("pairs" if kind == "pairs" else "sft", judge, matcher, seed, real, labels)
    gc.freeze()  # all modules: the rows make so many objects that Python would look through them again and again
    try:
        for read in read_rows(batches(rows), reader.columns, judge, matcher, engine):
            reader.take(read)
            progress(rows_of(read.rows))
    finally:
        gc.unfreeze()
    return reader.audit()


@dataclass
class _Reader:
    """Takes rows in, keeps numbers."""

    kind: Kind
    judge: Judge
    matcher: Matcher
    seed: int
    real: bool = False
    labels: RowLabels | None = None
    rows: int = 0
    answers: int = 0  # or pairs of them: more than rows where these have several turns
    _keys: list[Key] = field(default_factory=list)  # of judged rows, where some have labels
    _placed: list[tuple[Integers, Integers, tuple[Side, ...]]] = field(default_factory=list)
    _strongest: list[tuple[float, int, Record]] = field(default_factory=list)  # a heap, the weakest first
    _topic_only: list[Record] = field(default_factory=list)
    _costs: Counter[str] = field(default_factory=Counter)
    _drawn: list[str] = field(default_factory=list)  # questions with their answers, whose language is looked at
    _texts: list[str] = field(default_factory=list)  # the first that were judged

    def __post_init__(self) -> None:
        self.columns = COLUMNS[self.kind][1:]
        self._sheet = Sheet(self.columns, self.seed)
        self._touched = np.zeros(len(self.matcher.topics), dtype=np.int64)
        self._shown = np.zeros(len(self.matcher.topics), dtype=np.int64)  # rows in the table of these
        self._rng = np.random.default_rng([self.seed, 1])  # apart from the intervals, which use the seed itself
        self._language_rng = np.random.default_rng([self.seed, 2])
        # Of a fixed size, whatever the number of rows is; what is not filled is cut off in `audit`.
        self._styles = np.empty((STYLE_SAMPLE if self.kind == "pairs" else 0, 2, len(FIGURES)))

    def take(self, read: ReadRows) -> None:
        """Keep what a batch comes to that has been matched and judged."""
        batch, matches = read.rows, read.matches
        if self.kind == "pairs":
            self._read_styles(batch)
        if self.real and languages.installed():
            self._draw(batch)
        self._touched += np.bincount(matches.topic[matches.topic >= 0], minlength=len(self._touched))
        self._keep_topic_only(batch, matches)
        if read.about:
            sides = tuple(side_of(own) for own in read.verdicts)
            prompts = np.array([fingerprint(row["prompt"]) for row, _ in read.about], dtype=np.int64)
            # Prompts as numbers: the intervals need to know which are the same, and nothing else of them.
            self._placed.append((matches.proposition[read.placed], prompts, sides))
            self._costs.update(judge_costs([verdict for own in read.verdicts for verdict in own]))
            self._keep_texts(read.about)
            if self.labels is not None:
                self._keys += [(row["row"], row["turn"]) for row, _ in read.about]
            if self.real:
                self._sheet.take(read.about)
            self._keep_strongest(read.about, np.array(read.placed) + self.answers + 1, sides)
        self.answers += len(batch)
        self.rows += rows_of(batch)

    def _draw(self, batch: Sequence[Row]) -> None:
        """Keep a random part of all rows' texts."""
        for row, place in zip(batch, self._places(len(batch), languages.SAMPLE, self._language_rng), strict=True):
            if place < languages.SAMPLE:
                text = f"{asked(row)[:SHOWN]} {response(row[self.columns[0]])[:SHOWN]}"
                self._drawn[place : place + 1] = [text]

    def _keep_texts(self, about: Sequence[tuple[Row, Proposition]]) -> None:
        """Keep the first texts that were judged."""
        said = (response(row[column]) for column in self.columns for row, _ in about)
        self._texts += islice(filter(str.strip, said), _TEXTS - len(self._texts))

    def _keep_topic_only(self, batch: Sequence[Row], matches: Matches) -> None:
        for at in np.flatnonzero((matches.topic >= 0) & (matches.proposition < 0)).tolist():
            topic = matches.topic[at].item()
            if self._shown[topic] < TOPIC_ONLY:
                self._shown[topic] += 1
                record = {"row": batch[at]["row"], "topic": self.matcher.topics[topic]}
                record |= {"prompt": asked(batch[at])[:SHOWN]}
                record |= {column: response(batch[at][column])[:SHOWN] for column in self.columns}
                self._topic_only.append(record)

    def _read_styles(self, batch: Sequence[Row]) -> None:
        for row, place in zip(batch, self._places(len(batch), STYLE_SAMPLE, self._rng), strict=True):
            if place < STYLE_SAMPLE:
                self._styles[place] = [style(response(row[column])) for column in self.columns]

    def _places(self, count: int, size: int, rng: np.random.Generator) -> list[int]:
        """Where in a sample of ``size`` the next answers belong; from ``size`` on, nowhere.

        Reservoir sampling (Vitter 1985, algorithm R): every one so far is equally likely to be in the sample.
        """
        numbers = np.arange(self.answers, self.answers + count)
        return [int(place) for place in np.where(numbers < size, numbers, rng.integers(0, numbers + 1))]

    def _keep_strongest(
        self, about: Sequence[tuple[Row, Proposition]], numbers: Integers, sides: tuple[Side, ...]
    ) -> None:
        sigma = [side.probabilities @ SIGMA for side in sides]
        direction = (sigma[0] - sigma[1]) / 2 if len(sides) > 1 else sigma[0]
        for at in np.flatnonzero(np.abs(direction) > 0).tolist():
            # Of equal strength the earlier row stays. No two keys are equal, so that the heap never compares records.
            key = (float(abs(direction[at])), -int(numbers[at]))
            if len(self._strongest) < OPINIONATED or key > self._strongest[0][:2]:
                row, proposition = about[at]
                labels = [int(side.labels[at]) for side in sides]
                record = record_of(row, proposition, self.columns, labels)
                entry = (*key, {"row": row["row"], "direction": float(direction[at]), **record})
                if len(self._strongest) < OPINIONATED:
                    heapq.heappush(self._strongest, entry)
                else:
                    heapq.heappushpop(self._strongest, entry)

    def audit(self) -> Audit:
        """What all rows come to."""
        topics = self.matcher.topics
        place_of = np.array([topics.index(own.topic) for own in self.matcher.propositions])
        propositions, prompts, sides = self._joined()
        topic_of = place_of[propositions]
        kept = np.flatnonzero(self._touched)
        trust = reliability.of(self.judge, self._texts) if self.real else None
        by_topic = {
            topics[place]: self._findings(int(self._touched[place]), topic_of == place, prompts, sides, trust)
            for place in kept.tolist()
        }
        styles = self._styles[: self.answers]
        whole = Audit(
            data="",
            kind=self.kind,
            rows=self.rows,
            answers=self.answers,
            judge=identity(self.judge),
            suite="",
            overall=self._findings(int(self._touched.sum()), np.ones(len(topic_of), dtype=bool), prompts, sides, trust),
            topics=by_topic,
            style=style_gap(styles[:, 0], styles[:, 1], seed=self.seed) if self.kind == "pairs" else None,
            opinionated=[record for *_, record in sorted(self._strongest, key=lambda entry: entry[:2], reverse=True)],
            topic_only=sorted(self._topic_only, key=lambda record: topics.index(record["topic"])),
            # `kept` is sorted: places among all topics become places among those that were touched.
            topic_of=np.searchsorted(kept, topic_of),
            sides=sides,
            costs=dict(self._costs),
            trust=trust,
            languages=languages.of(self._drawn) if self._drawn else None,
            sheet=self._sheet.rows(),
        )
        return replace(whole, verdict=expectation(whole))

    def _joined(self) -> tuple[Integers, Integers, tuple[Side, ...]]:
        if not self._placed:
            nothing = Side(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=np.int8))
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), (nothing,) * len(self.columns)
        propositions, prompts, sides = zip(*self._placed, strict=True)
        joined = tuple(
            Side(
                np.concatenate([side.held for side in own]),
                np.concatenate([side.probabilities for side in own]),
                np.concatenate([side.labels for side in own]),
            )
            for own in zip(*sides, strict=True)
        )
        return np.concatenate(propositions), np.concatenate(prompts), joined

    def _findings(
        self,
        touched: int,
        chosen: NDArray[np.bool_],
        prompts: Integers,
        sides: tuple[Side, ...],
        trust: Reliability | None,
    ) -> Findings:
        own, same = [side.of(chosen) for side in sides], prompts[chosen]
        gap = soft = error = labelled = None
        if len(own) > 1:
            gap = value_gap(own[0].held, own[1].held, same, seed=self.seed)
            soft = value_gap(own[0].probabilities, own[1].probabilities, same, seed=self.seed).pairwise
            if trust is not None and trust.errors:
                errors = np.array(trust.errors)
                error = adjusted_gap(own[0].verdicts, own[1].verdicts, same, errors, seed=self.seed)
        if self.labels is not None:
            keys = [self._keys[place] for place in np.flatnonzero(chosen).tolist()]
            read = [side.held if len(own) > 1 else side.probabilities for side in own]
            labelled = labelled_figures(self.labels, keys, read, same)
        placed = int(chosen.sum())
        return Findings(
            coverage=share(touched, self.answers),
            touched=touched,
            proposition_coverage=share(placed, self.answers),
            placed=placed,
            mix=mean_distribution(own[0].probabilities, same, seed=self.seed),
            gap=gap,
            pairwise_soft=soft,
            judged=placed * len(own),
            unscored=sum(side.count(Label.UNSCORED) for side in own),
            refusals=sum(side.count(Label.REFUSAL) for side in own),
            error=error,
            labelled=labelled,
        )
