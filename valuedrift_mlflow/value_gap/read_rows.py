"""Batches of rows to what they touch and how their sides are judged.

In this process; of many rows on every core, or by the executors of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import UNSCORED, Answer, Verdict
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap.judged_rows import asked
from valuedrift_mlflow.value_gap.matching import Matcher, Matches, response
from valuedrift_mlflow.value_gap.propositions import Proposition
from valuedrift_mlflow.value_gap.spark import Engine, cluster

if TYPE_CHECKING:
    from joblib import Parallel

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")
# Batches that this process reads alone: to start the others takes seconds, which only many rows are worth.
ALONE = 4
_AHEAD = 2  # batches in hand for each of the others, so that none waits while the next rows are read


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
    """Several that work at the same time: processes, or the executors of a cluster."""

    workers: int

    def run(self, work: Callable[[_Given], _Found], given: Sequence[_Given]) -> Iterable[_Found]:
        """What comes of each, in order; all are begun before this returns."""
        ...


def read_rows(
    batches: Iterable[Sequence[Row]], columns: Sequence[str], judge: Judge, matcher: Matcher, engine: Engine = "local"
) -> Iterator[ReadRows]:
    """Read batches in order, the rows matched and their ``columns`` judged.

    From the fifth batch on (with the engine ``spark`` from the first) others match, and judge where the judge is the
    same in any process (``portable``): other judges have clients, caches or models of their own. An encoder has the
    cores to itself; on a cluster every executor has one. What is read does not depend on any of this.
    """
    waiting = iter(batches)
    for batch in islice(waiting, ALONE) if engine == "local" else ():
        yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)
    following = next(waiting, None)
    if following is None:
        return
    with cluster() if engine == "spark" else _processes(matcher) as pool:
        if pool is None:
            for batch in (following, *waiting):
                yield _judged(batch, matcher.match(batch), None, columns, judge, matcher)
            return
        yield from _shared(pool, following, waiting, columns, judge, matcher)


class _Processes:
    """Processes on the cores of this machine."""

    def __init__(self, pool: Parallel) -> None:
        self.workers: int = pool.n_jobs
        self._pool = pool

    def run(self, work: Callable[[_Given], _Found], given: Sequence[_Given]) -> Iterable[_Found]:
        from joblib import delayed

        found: Iterable[_Found] = self._pool([delayed(work)(one) for one in given])
        return found


@contextmanager
def _processes(matcher: Matcher) -> Iterator[Pool | None]:
    """As many processes as there are cores; None where one would be alone."""
    import joblib

    cores = joblib.cpu_count()
    if matcher.embedder or cores < 2:
        yield None
        return
    with joblib.Parallel(n_jobs=cores, return_as="generator", pre_dispatch="all", batch_size=1) as pool:
        yield _Processes(pool)


def _shared(
    pool: Pool,
    first: Sequence[Row],
    waiting: Iterator[Sequence[Row]],
    columns: Sequence[str],
    judge: Judge,
    matcher: Matcher,
) -> Iterator[ReadRows]:
    local = judge if getattr(judge, "portable", False) else None
    read = partial(_read, columns=columns, judge=local, suite=matcher.suite, embedder=matcher.embedder)
    many = _AHEAD * pool.workers
    hand = [first, *islice(waiting, many - 1)]
    while hand:
        found = pool.run(read, hand)
        # Rows are read from their source while the others are at work.
        following = list(islice(waiting, many))
        for batch, (matches, verdicts) in zip(hand, found, strict=True):
            yield _judged(batch, matches, verdicts, columns, judge, matcher)
        hand = following


def _read(
    batch: Sequence[Row], columns: Sequence[str], judge: Judge | None, suite: Suite, embedder: str
) -> tuple[Matches, list[list[Verdict]] | None]:
    """What another process does with a batch."""
    matcher = _matcher(suite, embedder)
    matches = matcher.match(batch)
    if judge is None:
        return matches, None
    return matches, _verdicts(_about(batch, matches, matcher), columns, judge)


_MATCHERS: dict[tuple[str, str], Matcher] = {}  # of this process: one is made in a second, and serves all batches


def _matcher(suite: Suite, embedder: str) -> Matcher:
    key = suite.hash, embedder
    if key not in _MATCHERS:
        _MATCHERS.clear()
        _MATCHERS[key] = Matcher(suite, embedder)
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
