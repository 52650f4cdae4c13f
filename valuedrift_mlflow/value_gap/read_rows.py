"""Batches of rows to what they touch and how their sides are judged.

In this process; of many rows on every core, or by the executors of a cluster.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pickle import PicklingError
from typing import Protocol, TypeVar

import numpy as np

from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.workers import workers
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import UNSCORED, Answer, Verdict
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap.judged_rows import asked
from valuedrift_mlflow.value_gap.matching import Matcher, Matches, response
from valuedrift_mlflow.value_gap.propositions import Proposition
from valuedrift_mlflow.value_gap.spark import Engine, cluster

logger = logging.getLogger(__name__)
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")
# Batches that this process reads alone: to start the others takes seconds, which only many rows are worth.
ALONE = 2
_AHEAD = 2  # batches in hand for each of the others, so that none waits while the next rows are read
_OWN = 6  # batches that this process reads beside others
_Read = tuple[Matches, list[list[Verdict]] | None]  # verdicts where the judge was there, too


@dataclass(frozen=True, slots=True)
class ReadRows:
    """A batch of N rows that has been read.

    ``about`` are the rows that touch a proposition, ``placed`` their places among the N, ``verdicts`` those on each of
    their sides.
    """

    rows: Sequence[Row]
    matches: Matches
    placed: list[int]
    about: list[tuple[Row, Proposition]]
    verdicts: list[list[Verdict]]


class Pool(Protocol):
    """Several that work at the same time: processes, or the executors of a cluster.

    ``own`` batches at most are read by this process beside them, while all of them are busy.
    """

    workers: int
    own: int

    def begin(self, work: Callable[[_Given], _Found], given: _Given) -> Future[_Found]:
        """Begin with one as soon as somebody is free; what comes of it is waited for."""
        ...


def read_rows(
    batches: Iterable[Sequence[Row]], columns: Sequence[str], judge: Judge, matcher: Matcher, engine: Engine = "local"
) -> Iterator[ReadRows]:
    """Read batches in order, the rows matched and their ``columns`` judged.

    From the third batch on (with the engine ``spark`` from the first) others match, and judge where the judge is the
    same in any process (``portable``): other judges have clients, caches or models of their own. While all other
    processes are starting or busy, and once one of them is lost, this one does the same. An encoder has the cores to
    itself; on a cluster every executor has one. What is read does not depend on any of this.
    """
    waiting = iter(batches)
    for batch in islice(waiting, ALONE) if engine == "local" else ():
        yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)
    following = next(waiting, None)
    if following is None:
        return
    with cluster() if engine == "spark" else _processes(matcher) as pool:
        if pool is None:
            for batch in chain([following], waiting):
                yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)
            return
        yield from _shared(pool, chain([following], waiting), columns, judge, matcher)


class _Processes:
    """Processes on the cores of this machine, beside this one."""

    own = _OWN

    def __init__(self, executor: Executor, workers: int) -> None:
        self.workers = workers
        self._executor = executor

    def begin(self, work: Callable[[_Given], _Found], given: _Given) -> Future[_Found]:
        try:
            return self._executor.submit(work, given)
        except BrokenProcessPool as error:  # told in its turn
            lost: Future[_Found] = Future()
            lost.set_exception(error)
            return lost


@contextmanager
def _processes(matcher: Matcher) -> Iterator[Pool | None]:
    """As many processes as there are other cores; None where there is none."""
    executor, count = (None, 0) if matcher.embedder else workers()
    yield _Processes(executor, count) if executor else None


def _shared(
    pool: Pool, batches: Iterator[Sequence[Row]], columns: Sequence[str], judge: Judge, matcher: Matcher
) -> Iterator[ReadRows]:
    local = judge if getattr(judge, "portable", False) else None
    read = partial(_read, columns=columns, judge=local, suite=matcher.suite, embedder=matcher.embedder)
    many = _AHEAD * pool.workers
    hand: deque[tuple[Sequence[Row], Future[_Read]]] = deque()
    # A process imports and prepares for seconds: it is not waited for.
    ready = pool.begin(prepared, (matcher.suite, matcher.embedder, local)) if pool.own else None
    try:
        for batch in batches:
            if ready is not None and not ready.done():
                yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)
                continue
            if pool.own and sum(not found.done() for _, found in hand) >= many:
                hand.append((batch, _known((matcher.match(batch), None))))
            else:
                hand.append((batch, pool.begin(read, batch)))
            while hand and (hand[0][1].done() or len(hand) > many + pool.own):
                matches, verdicts = hand[0][1].result()
                yield _judged(hand.popleft()[0], matches, verdicts, columns, judge, matcher)
        while hand:
            matches, verdicts = hand[0][1].result()
            yield _judged(hand.popleft()[0], matches, verdicts, columns, judge, matcher)
    except (BrokenProcessPool, PicklingError) as error:  # killed, or a judge that is not as portable as it says
        logger.warning("other processes read no more rows, this one goes on alone: %s", one_line(error))
    finally:
        for _, found in hand:  # of an audit that has come to an early end
            found.cancel()
    for batch in chain([batch for batch, _ in hand], batches):  # none, unless others were lost
        yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)


def _known(found: _Found) -> Future[_Found]:
    """What needs not be waited for."""
    future: Future[_Found] = Future()
    future.set_result(found)
    return future


def _read(batch: Sequence[Row], columns: Sequence[str], judge: Judge | None, suite: Suite, embedder: str) -> _Read:
    """What another process does with a batch."""
    matcher = _matcher(suite, embedder)
    matches = matcher.match(batch)
    if judge is None:
        return matches, None
    return matches, _verdicts(_about(batch, matches, matcher), columns, judge)


def prepared(of: tuple[Suite, str, Judge | None]) -> None:
    """What another process does before its first batch: it reads one answer, so that all it needs is loaded."""
    suite, embedder, judge = of
    item = suite.items[0]
    prompt, completion = ([{"role": role, "content": item.prompt}] for role in ("user", "assistant"))
    _matcher(suite, embedder).match([{"prompt": prompt, "completion": completion}])
    if judge is not None:
        judge.judge([Answer(item.proposition, item.prompt, item.prompt, item.polarity)])


_MATCHERS: dict[tuple[str, str], Matcher] = {}  # of this process: one is made in a second, and serves all batches


def _matcher(suite: Suite, embedder: str) -> Matcher:
    key = suite.hash, embedder
    if key not in _MATCHERS:
        _MATCHERS.clear()
        _MATCHERS[key] = Matcher(suite, embedder)
        gc.freeze()  # as in `audit.examine`
    return _MATCHERS[key]


def _judged(
    batch: Sequence[Row],
    matches: Matches,
    verdicts: list[list[Verdict]] | None,
    columns: Sequence[str],
    judge: Judge,
    matcher: Matcher,
) -> ReadRows:
    about = _about(batch, matches, matcher)
    if verdicts is None:
        verdicts = _verdicts(about, columns, judge)
    return ReadRows(batch, matches, np.flatnonzero(matches.proposition >= 0).tolist(), about, verdicts)


def _about(batch: Sequence[Row], matches: Matches, matcher: Matcher) -> list[tuple[Row, Proposition]]:
    """The rows that touch a proposition, each with it."""
    placed = np.flatnonzero(matches.proposition >= 0).tolist()
    return [(batch[row], matcher.propositions[matches.proposition[row].item()]) for row in placed]


def _verdicts(about: Sequence[tuple[Row, Proposition]], columns: Sequence[str], judge: Judge) -> list[list[Verdict]]:
    """The verdicts of each side on all rows; an empty response is unscored without asking."""
    prompts = [(asked(row), proposition.polarity(asked(row))) for row, proposition in about]
    # Both sides in one call: a judge on a server has more to do at once, and its cache sees equal answers together.
    answers = [
        Answer(proposition.text, prompt, response(row[column]), polarity)
        for column in columns
        for (row, proposition), (prompt, polarity) in zip(about, prompts, strict=True)
    ]
    spoken = [place for place, answer in enumerate(answers) if answer.response.strip()]
    said = judge.judge([answers[place] for place in spoken]) if spoken else []
    verdicts = [UNSCORED] * len(answers)
    for place, verdict in zip(spoken, said, strict=True):
        verdicts[place] = verdict
    return [verdicts[side * len(about) : (side + 1) * len(about)] for side in range(len(columns))]
