from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.workers import workers
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import Answer, Verdict
from valuedrift_mlflow.value_gap import audit, exchanges, read_rows
from valuedrift_mlflow.value_gap.matching import Matcher


class _Counting:
    """The offline judge in a wrapper that is of this process alone, as a judge with a client or a cache is."""

    name = "counting"

    def __init__(self) -> None:
        self.inner, self.asked = judges.load("lexical"), 0

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.asked += len(answers)
        return self.inner.judge(answers)


class _Deadly(_Counting):
    """Says that it reads the same in any process, and ends all but this one."""

    portable = True

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(answers)


class _Unpicklable(_Counting):
    portable = True

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "BATCH", 40)
    monkeypatch.setattr(read_rows, "ALONE", 1)


def test_on_every_core_an_audit_comes_to_what_it_comes_to_on_one(
    small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs")
    matcher = Matcher(suite.load("vaes"))
    counting = _Counting()
    found = []
    for cores, judge in ((1, judges.load("lexical")), (2, judges.load("lexical")), (2, counting)):
        monkeypatch.setattr("joblib.cpu_count", lambda cores=cores: cores)
        others, _ = workers()
        if others is not None:  # so few rows would be read before it has started
            others.submit(read_rows.prepared, (matcher.suite, matcher.embedder, None)).result()
        reader: Judge = judge
        audited = audit.examine(data.rows, "pairs", reader, matcher)
        found.append((audited.metrics(), audited.opinionated, audited.topic_only, audited.rows))
    assert found[0] == found[1] == found[2]
    assert found[0][-1] == 300 and counting.asked > 400  # most sides, all in this process


@pytest.mark.parametrize("judge", [_Deadly, _Unpicklable])
def test_what_lost_processes_were_to_read_is_read_here(
    judge: type[_Counting], small_batches: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs")
    matcher = Matcher(suite.load("vaes"))
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    others, _ = workers()
    assert others is not None  # so few rows would be read before it has started
    others.submit(read_rows.prepared, (matcher.suite, matcher.embedder, None)).result()
    audited = audit.examine(data.rows, "pairs", judge(), matcher)
    assert audited.metrics() == audit.examine(data.rows, "pairs", _Counting(), matcher).metrics()
    assert audited.rows == 300 and caplog.text.count("this one goes on alone") == 1


def test_while_others_are_busy_rows_are_read_here_and_come_in_their_order(
    small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only other worker has two batches of 40 in hand and ends none before this process has read three."""
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs").rows
    matcher, judge = Matcher(suite.load("vaes")), judges.load("lexical")
    match, read_three = matcher.match, threading.Event()
    begun, calls = list[int](), list[int]()

    def counted(batch: Sequence[Any]) -> Any:
        calls.append(batch[0]["row"])
        if len(calls) == 1 + 3:  # the first is read alone
            read_three.set()
        return match(batch)

    class Pool:
        workers, own = 1, 6

        def begin(self, work: Callable[[Any], Any], given: Any) -> Future[Any]:
            if work is read_rows.prepared:
                ready = Future[Any]()
                ready.set_result(None)
                return ready
            begun.append(given[0]["row"])
            return executor.submit(lambda: work(given) if read_three.wait(60) else None)

    @contextmanager
    def pool(matcher: Matcher) -> Iterator[Pool]:
        yield Pool()

    monkeypatch.setattr(read_rows, "_processes", pool)
    monkeypatch.setattr(matcher, "match", counted)
    with ThreadPoolExecutor(1) as executor:
        said = list(read_rows.read_rows(exchanges.batches(rows), ("chosen", "rejected"), judge, matcher))
    assert [one.rows[0]["row"] for one in said] == [1, 41, 81, 121, 161, 201, 241, 281]
    assert begun[:2] == [41, 81] and calls[:4] == [1, 121, 161, 201]
    monkeypatch.undo()
    for one in said:
        assert one.matches.proposition.tolist() == matcher.match(one.rows).proposition.tolist()


@pytest.mark.parametrize(("cores", "judge"), [(1, _Counting), (2, _Counting), (2, _Deadly)])
def test_batches_are_drawn_as_they_are_read(
    cores: int, judge: type[_Counting], small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the whole source: a few batches in hand beside the one that is read, on any number of cores."""
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=40&seed=3"), "pairs").rows
    drawn = 0

    def batches() -> Iterator[Sequence[Any]]:
        nonlocal drawn
        for _ in range(60):
            drawn += 1
            yield rows

    ahead = [
        drawn - number
        for number, _ in enumerate(
            read_rows.read_rows(batches(), ("chosen", "rejected"), judge(), Matcher(suite.load("vaes")))
        )
    ]
    assert len(ahead) == 60
    assert max(ahead) <= 2 + (read_rows._AHEAD + read_rows._OWN) * (cores - 1)


def test_long_rows_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends with the row that passes the bound: six rows of 300 characters where 1,000 are allowed."""
    monkeypatch.setattr(exchanges, "CHARACTERS", 1_000)
    said = [{"role": "assistant", "content": "x" * 290}]
    row = {"prompt": [{"role": "user", "content": "y" * 10}], "completion": said}
    assert [len(batch) for batch in exchanges.batches([row] * 6)] == [4, 2]


def test_a_script_without_a_main_guard_may_audit(tmp_path: Path) -> None:
    """Processes are started under a script that would audit once more if it were imported by them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from valuedrift_mlflow import judges, suite\n"
        "from valuedrift_mlflow.data.datasets import load_data\n"
        "from valuedrift_mlflow.data.settings import Data\n"
        "from valuedrift_mlflow.value_gap import audit, exchanges, read_rows\n"
        "from valuedrift_mlflow.value_gap.matching import Matcher\n"
        "exchanges.BATCH, read_rows.ALONE = 20, 1\n"
        "rows = load_data(Data(uri='embedded:pairs?size=100'), 'pairs').rows\n"
        "print('rows', audit.examine(rows, 'pairs', judges.load('lexical'), Matcher(suite.load('vaes'))).rows)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == ["rows 100"], done.stderr
