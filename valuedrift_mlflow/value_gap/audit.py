"""What will these data do to values? The stances of a dataset and, of pairs, their value gap.

Rows are read one block after another and matched with the topics and propositions of a suite (`matching`); those that
touch a proposition are judged, because a stance is a stance on something. What is kept of a row are a few numbers, so
memory hardly grows with the rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data import blocks, shown
from valuedrift_mlflow.data.blocks import Block
from valuedrift_mlflow.data.datasets import COLUMNS, Digest, Kind, Stream, TrainingData, stream
from valuedrift_mlflow.data.settings import Data, Turns
from valuedrift_mlflow.evaluation import recorded, reliability
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.judges import asking
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.statistics.adjusted_gap import adjusted_gap
from valuedrift_mlflow.statistics.intervals import share
from valuedrift_mlflow.statistics.style_gap import style_gap
from valuedrift_mlflow.statistics.value_gap import mean_distribution, value_gap
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap import languages
from valuedrift_mlflow.value_gap.expectation import expectation
from valuedrift_mlflow.value_gap.findings import Audit, Findings, Side
from valuedrift_mlflow.value_gap.matching import Matcher
from valuedrift_mlflow.value_gap.read_rows import Part, Task, read_rows
from valuedrift_mlflow.value_gap.row_labels import SHEET, RowLabels, check_row_labels, labelled_figures, load_row_labels
from valuedrift_mlflow.value_gap.spark import Engine, engine_of
from valuedrift_mlflow.value_gap.tally import Tally

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
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
        first, streamed = list[Row](), Digest()

        def passed(part: Part) -> None:
            part.add_to(streamed)
            first.extend([] if first or part.first is None else [part.first])
            progress(part.tally.rows)

        real = not data.uri.startswith(_EMBEDDED)
        audited = examine(
            data.rows if isinstance(data, TrainingData) else data,
            data.kind,
            prepared.judge,
            prepared.matcher,
            seed=seed,
            passed=passed,
            digested=isinstance(data, Stream),
            real=real,
            labels=prepared.labels,
            engine=prepared.engine,
        )
        spoken = languages.UNKNOWN if audited.languages is None else audited.languages.line()
        about = (shown.line(data), *([spoken] if real else []), *(text for row in first for text in shown.seen(row)))
        audited = replace(audited, about=about, data=data.uri, suite=prepared.suite.identity, run_id=active.run_id)
        digest = str(streamed) if isinstance(data, Stream) else data.digest()
        recorded.log_audited_data(active, data.uri, data.format, digest)
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
    rows: Iterable[Row] | Stream,
    kind: Kind,
    judge: Judge,
    matcher: Matcher,
    *,
    seed: int = 0,
    passed: Callable[[Part], None] = lambda part: None,
    digested: bool = False,
    real: bool = False,
    labels: RowLabels | None = None,
    engine: Engine = "local",
) -> Audit:
    """Audit normalised rows without logging anything; see `audit`.

    ``passed`` is given every part of the rows in their order, with the text for a digest of them where they are to be
    ``digested``. A source of no rows gives an audit of none. The judge on ``real`` texts is checked against labelled
    ones, and its errors there are taken off the gap.
    """
    spoken = real and languages.installed()
    tally = Tally("pairs" if kind == "pairs" else "sft", len(matcher.topics), seed, spoken, sheet=real)

    def read(given: Iterator[Block]) -> Iterator[Part]:
        tasks = (Task(block, tally.part(number), digested) for number, block in enumerate(given))
        return read_rows(tasks, judge, matcher, engine)

    gc.freeze()  # all modules: the rows make so many objects that Python would look through them again and again
    try:
        for part in rows.parts(read) if isinstance(rows, Stream) else read(blocks.given(rows)):
            part.judge(judge)
            tally.add(part.tally)
            passed(part)
    finally:
        gc.unfreeze()
    return _Figures(tally, judge, matcher, labels, real).audit()


@dataclass(frozen=True)
class _Figures:
    """What a tally says."""

    tally: Tally
    judge: Judge
    matcher: Matcher
    labels: RowLabels | None
    real: bool

    def audit(self) -> Audit:
        """Of all rows."""
        topics, tally = self.matcher.topics, self.tally
        place_of = np.array([topics.index(own.topic) for own in self.matcher.propositions])
        propositions, prompts, sides = tally.read()
        topic_of = place_of[propositions]
        kept = np.flatnonzero(tally.touched)
        trust = reliability.of(self.judge, tally.texts) if self.real else None
        by_topic = {
            topics[place]: self._findings(int(tally.touched[place]), topic_of == place, prompts, sides, trust)
            for place in kept.tolist()
        }
        styles, drawn = tally.styles(), tally.drawn()
        whole = Audit(
            data="",
            kind=tally.kind,
            rows=tally.rows,
            answers=tally.answers,
            judge=identity(self.judge),
            suite="",
            overall=self._findings(int(tally.touched.sum()), np.ones(len(topic_of), dtype=bool), prompts, sides, trust),
            topics=by_topic,
            style=style_gap(styles[:, 0], styles[:, 1], seed=tally.seed) if tally.kind == "pairs" else None,
            opinionated=tally.strongest(),
            topic_only=[record for _, record in sorted(tally.topic_only, key=lambda own: own[0])],
            # `kept` is sorted: places among all topics become places among those that were touched.
            topic_of=np.searchsorted(kept, topic_of),
            sides=sides,
            costs=dict(tally.costs),
            trust=trust,
            languages=languages.of(drawn) if drawn else None,
            sheet=tally.to_label(),
        )
        return replace(whole, verdict=expectation(whole))

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
            gap = value_gap(own[0].held, own[1].held, same, seed=self.tally.seed)
            soft = value_gap(own[0].probabilities, own[1].probabilities, same, seed=self.tally.seed).pairwise
            if trust is not None and trust.errors:
                errors = np.array(trust.errors)
                error = adjusted_gap(own[0].verdicts, own[1].verdicts, same, errors, seed=self.tally.seed)
        if self.labels is not None:
            keys = [(row, turn) for row, turn in self.tally.keys()[chosen].tolist()]
            read = [side.held if len(own) > 1 else side.probabilities for side in own]
            labelled = labelled_figures(self.labels, keys, read, same)
        placed = int(chosen.sum())
        return Findings(
            coverage=share(touched, self.tally.answers),
            touched=touched,
            proposition_coverage=share(placed, self.tally.answers),
            placed=placed,
            mix=mean_distribution(own[0].probabilities, same, seed=self.tally.seed),
            gap=gap,
            pairwise_soft=soft,
            judged=placed * len(own),
            unscored=sum(side.count(Label.UNSCORED) for side in own),
            refusals=sum(side.count(Label.REFUSAL) for side in own),
            error=error,
            labelled=labelled,
        )
