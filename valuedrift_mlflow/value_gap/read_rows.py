"""Blocks of rows to what they come to: read, matched and judged.

In this process; of many rows on every core, or by the executors of a cluster.
"""

from __future__ import annotations

import gc
import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Protocol, TypeVar

from valuedrift_mlflow.data.blocks import CHARACTERS, Block, ReadCounts
from valuedrift_mlflow.data.datasets import Digest
from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.workers import workers
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import UNSCORED, Answer, Verdict
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap.exchanges import batches, is_wanted
from valuedrift_mlflow.value_gap.judged_rows import asked
from valuedrift_mlflow.value_gap.matching import Matcher, response
from valuedrift_mlflow.value_gap.spark import Engine, cluster
from valuedrift_mlflow.value_gap.tally import About, Integers, Tally

logger = logging.getLogger(__name__)
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")
# Blocks that this process reads alone where there are no more: it has read them when the others have started.
FEW = 6
_AHEAD = 2  # blocks in hand for each of the others, so that none waits while the next rows are read
_OWN = 6  # blocks that this process reads beside others
_ALONE = "other processes read no more rows, this one goes on alone: %s"
_LONGEST_TEXT = 4 * CHARACTERS  # bytes
_Matching = tuple[str, bytes | Suite, str]  # a suite's hash, the suite, pickled once for all blocks, an encoder's name


@dataclass(frozen=True)
class Task:
    """A block of rows, an empty tally of what it comes to, and whether a digest of all rows is wanted."""

    block: Block
    tally: Tally
    digested: bool = False


@dataclass
class Part:
    """What a block comes to: the counts of its rows, the first of them and their text for a digest, and a tally.

    Where the text would be much longer than the block (each answer of a long dialogue repeats all before it), there is
    the ``block`` in its place. ``waiting`` are batches that are still to be judged: the rows that touch a proposition,
    their places and what they touch, each (N,).
    """

    counts: ReadCounts
    tally: Tally
    first: Row | None = None
    text: bytes = b""
    block: Block | None = None
    waiting: list[tuple[About, Integers, Integers]] = field(default_factory=list)

    def add_to(self, digest: Digest) -> None:
        """Take the rows into a digest of all."""
        digest.take(self.text)
        if self.block is not None:  # read once more, row by row
            for row in self.block.rows(ReadCounts()):
                digest.take(Digest.text([row]))

    def judge(self, judge: Judge) -> None:
        """Judge what has not been judged."""
        for about, places, propositions in self.waiting:
            self.tally.judged(about, places, propositions, _verdicts(about, self.tally.columns, judge))
        self.waiting.clear()


class Pool(Protocol):
    """Several that work at the same time: processes, or the executors of a cluster.

    ``own`` blocks at most are read by this process beside them, while all of them are busy.
    """

    workers: int
    own: int

    def begin(self, work: Callable[[_Given], _Found], given: _Given) -> Future[_Found]:
        """Begin with one as soon as somebody is free; what comes of it is waited for."""
        ...


def read_rows(tasks: Iterable[Task], judge: Judge, matcher: Matcher, engine: Engine = "local") -> Iterator[Part]:
    """Read blocks in order, match their rows and judge those that touch a proposition.

    Where there are seven blocks or more (with the engine ``spark`` always) others do the same, but judge only where the
    judge is the same in any process (``portable``): other judges have clients, caches or models of their own, and
    `Part.judge` is called in this process. While all other processes are starting or busy, and once one of them is
    lost, this one reads. An encoder has the cores to itself; on a cluster every executor has one. What is read does not
    depend on any of this.
    """
    waiting = iter(tasks)
    local = judge if getattr(judge, "portable", False) else None
    here = partial(_read_here, judge=local, matcher=matcher)
    few = FEW if engine == "local" else 0
    first = deque(islice(waiting, few + 1))
    all_of_them = chain((first.popleft() for _ in range(len(first))), waiting)
    if len(first) <= few:
        yield from map(here, all_of_them)
        return
    with cluster() if engine == "spark" else _processes(matcher) as pool:
        yield from map(here, all_of_them) if pool is None else _shared(pool, all_of_them, here, local, matcher)


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
    pool: Pool, tasks: Iterator[Task], here: Callable[[Task], Part], local: Judge | None, matcher: Matcher
) -> Iterator[Part]:
    matching = matching_of(matcher)
    there = partial(_read_there, judge=local, matching=matching)
    many = _AHEAD * pool.workers
    hand: deque[tuple[Task, Future[Part]]] = deque()
    # A process imports and prepares for seconds: it is not waited for.
    ready = pool.begin(partial(prepared, judge=local), matching) if pool.own else None
    try:
        for task in tasks:
            if ready is not None and not ready.done():
                yield here(task)
                continue
            if ready is not None and (error := ready.exception()) is not None:  # they cannot have what this one has
                logger.warning(_ALONE, one_line(error))
                yield here(task)
                break
            busy = pool.own and sum(not found.done() for _, found in hand) >= many
            hand.append((task, _known(here(task)) if busy else pool.begin(there, task)))
            while hand and (hand[0][1].done() or len(hand) > many + pool.own):
                part = hand[0][1].result()
                hand.popleft()
                yield part
        while hand:
            part = hand[0][1].result()
            hand.popleft()
            yield part
    except (BrokenProcessPool, pickle.PicklingError) as error:  # killed, or a judge that is not as portable as it says
        logger.warning(_ALONE, one_line(error))
    finally:
        for _, found in hand:  # of an audit that has come to an early end
            found.cancel()
    for task, found in hand:  # none, unless others were lost; what has been read is not read again
        yield found.result() if found.done() and not found.cancelled() and not found.exception() else here(task)
    yield from map(here, tasks)


def matching_of(matcher: Matcher) -> _Matching:
    """What makes the same matcher in another process."""
    # One of a user's own class is left to the pool: it knows how to hand on what is defined in a script.
    suite = pickle.dumps(matcher.suite) if type(matcher.suite) is Suite else matcher.suite
    return matcher.suite.hash, suite, matcher.embedder


def _known(found: _Found) -> Future[_Found]:
    """What needs not be waited for."""
    future: Future[_Found] = Future()
    future.set_result(found)
    return future


def _read_here(task: Task, judge: Judge | None, matcher: Matcher) -> Part:
    """Read a block; without a judge the part is still to be judged."""
    part = Part(ReadCounts(), task.tally)
    for batch in batches(_passing(task, part)):
        matches = matcher.match(batch)
        about, places = part.tally.take(batch, matches, matcher)
        if about:
            part.waiting.append((about, places, matches.proposition[matches.proposition >= 0]))
        if judge is not None:
            part.judge(judge)
    return part


def _passing(task: Task, part: Part) -> Iterator[Row]:
    """The rows of a block, of which the part keeps what it needs of all."""
    texts, size = list[bytes](), 0
    for row in task.block.rows(part.counts):
        part.first = part.first or row
        part.tally.numbered += is_wanted(row)
        if task.digested and part.block is None:
            texts.append(Digest.text([row]))
            size += len(texts[-1])
            if size > _LONGEST_TEXT:
                part.block = task.block
                texts.clear()
        yield row
    part.text = b", ".join(texts)


def _read_there(task: Task, judge: Judge | None, matching: _Matching) -> Part:
    """Read a block in another process."""
    return _read_here(task, judge, _matcher(matching))


def prepared(matching: _Matching, judge: Judge | None) -> None:
    """What another process does before its first block: it reads one answer, so that all it needs is loaded."""
    matcher = _matcher(matching)
    item = matcher.suite.items[0]
    prompt, completion = ([{"role": role, "content": item.prompt}] for role in ("user", "assistant"))
    matcher.match([{"prompt": prompt, "completion": completion}])
    if judge is not None:
        judge.judge([Answer(item.proposition, item.prompt, item.prompt, item.polarity)])


_MATCHERS: dict[tuple[str, str], Matcher] = {}  # of this process: one is made in a second, and serves all blocks


def _matcher(matching: _Matching) -> Matcher:
    name, suite, embedder = matching
    if (name, embedder) not in _MATCHERS:
        _MATCHERS.clear()
        _MATCHERS[name, embedder] = Matcher(pickle.loads(suite) if isinstance(suite, bytes) else suite, embedder)
        gc.freeze()  # as in `audit.examine`
    return _MATCHERS[name, embedder]


def _verdicts(about: About, columns: Sequence[str], judge: Judge) -> list[list[Verdict]]:
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
