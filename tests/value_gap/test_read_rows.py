from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.data import blocks
from valuedrift_mlflow.data.blocks import ReadCounts, Reading
from valuedrift_mlflow.data.datasets import Digest, load_data, stream
from valuedrift_mlflow.data.files import Line
from valuedrift_mlflow.data.formats import FORMATS
from valuedrift_mlflow.data.layouts import Layout
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.workers import workers
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import Answer, Spent, Verdict
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.value_gap import audit, exchanges, read_rows
from valuedrift_mlflow.value_gap.matching import Matcher
from valuedrift_mlflow.value_gap.tally import Tally


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


class _Homesick(_Deadly):
    """Says that it reads the same in any process, and cannot in any but this one."""

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        if os.getpid() != self.home:
            raise FileNotFoundError("a file of the first process")
        return super().judge(answers)


class _Paid(_Counting):
    """Ten tokens a verdict, none of which has been paid for before."""

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [replace(verdict, spent=Spent(1, 10)) for verdict in super().judge(answers)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROWS", 40)
    monkeypatch.setattr(read_rows, "FEW", 1)


def ready(matcher: Matcher) -> None:
    """Another process, if there is one, has begun: so few rows would be read before it has."""
    others, _ = workers()
    if others is not None:
        others.submit(read_rows.prepared, read_rows.matching_of(matcher), judges.load("lexical")).result()
        others.submit(_Counting).result()  # it knows this module


def tasks(given: Iterable[blocks.Block], matcher: Matcher) -> Iterator[read_rows.Task]:
    """Blocks of pairs, each with an empty tally."""
    whole = Tally("pairs", len(matcher.topics), seed=0)
    return (read_rows.Task(block, whole.part(number)) for number, block in enumerate(given))


def test_on_every_core_an_audit_comes_to_what_it_comes_to_on_one(
    small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs")
    matcher = Matcher(suite.load("vaes"))
    counting = _Counting()
    found = []
    for cores, judge in ((1, judges.load("lexical")), (2, judges.load("lexical")), (2, counting)):
        monkeypatch.setattr("joblib.cpu_count", lambda cores=cores: cores)
        ready(matcher)
        reader: Judge = judge
        audited = audit.examine(data.rows, "pairs", reader, matcher)
        found.append((audited.metrics(), audited.opinionated, audited.topic_only, audited.rows))
    assert found[0] == found[1] == found[2]
    assert found[0][-1] == 300 and counting.asked > 400  # most sides, all in this process


def test_a_file_comes_to_the_same_whoever_reads_its_lines(
    small_batches: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With rows that are no json, empty or equal, dialogues, and more rows than are shown or drawn."""
    planted = load_data(Data(uri="embedded:pairs?gap=0.5&size=400&seed=3"), "pairs").rows
    again = [{"role": "user", "content": "Are you sure?"}, {"role": "assistant", "content": "I am."}]
    rows = [dict(row) for row in planted]
    for row in rows[::9]:
        row |= {"chosen": [*row["chosen"], *again], "rejected": [*row["rejected"], *again]}
    lines = [json.dumps(row) for row in rows]
    lines[50:50] = ["no json", "", json.dumps(rows[0] | {"chosen": rows[0]["rejected"]}), "[1, 2]"]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    data, matcher = stream(Data(uri=str(file), on_bad_row="skip")), Matcher(suite.load("vaes"))
    digest, found = Digest(), list[Any]()
    digest.take(Digest.text(data))
    for cores, judge in ((1, judges.load("lexical")), (2, judges.load("lexical")), (2, _Deadly()), (2, _Counting())):
        monkeypatch.setattr("joblib.cpu_count", lambda cores=cores: cores)
        ready(matcher)
        parts = list[read_rows.Part]()
        audited = audit.examine(
            data, "pairs", cast(Judge, judge), matcher, real=True, passed=parts.append, digested=True
        )
        texts = Digest()
        for part in parts:
            part.add_to(texts)
        assert str(texts) == str(digest)
        tables = audited.opinionated, audited.topic_only, audited.sheet, audited.metrics()
        found.append((tables, audited.languages, audited.rows, audited.answers, data.counts))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][2:] == (400, 400, ReadCounts(403, 2, 1, 0, 400, 0, 1, data.counts.problems))
    shown = found[0][0]
    assert len(shown[0]) == 50 and len(shown[2]) == 100
    texts_of = {number: rows[number - 1]["prompt"][-1]["content"] for number in range(1, 401)}
    assert all(texts_of[record["row"]] == record["prompt"] for record in (*shown[0], *shown[1], *shown[2]))


def test_the_text_of_a_block_is_bounded_where_dialogues_repeat_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every second answer is not to be learnt from, so that each of the others is a row with all before it."""
    monkeypatch.setattr(read_rows, "_LONGEST_TEXT", 30_000)
    said = [
        {"role": role, "content": f"{role} {turn}", "weight": turn % 2}
        for turn in range(200)
        for role in ("user", "assistant")
    ]
    file = tmp_path / "dialogues.jsonl"
    lines = [json.dumps({"messages": said[:2]}), json.dumps({"messages": said}), json.dumps({"messages": said[2:4]})]
    file.write_text("\n".join(lines), encoding="utf-8")
    data, matcher, parts = (
        stream(Data(uri=str(file), on_bad_row="skip"), "sft"),
        Matcher(suite.load("vaes")),
        list[read_rows.Part](),
    )
    whole, digest = Digest(), Digest()
    whole.take(Digest.text(data))
    monkeypatch.setattr(blocks, "ROWS", 1)
    audit.examine(data, "sft", judges.load("lexical"), matcher, passed=parts.append, digested=True)
    for part in parts:
        part.add_to(digest)
    assert str(digest) == str(whole) and sum(part.tally.rows for part in parts) == 101
    assert [len(part.text) > 0 for part in parts] == [False, False, True]
    assert [part.block is not None for part in parts] == [False, True, False]


def test_a_suite_of_a_class_of_ones_own_is_read_by_others_too(
    small_batches: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Mine(Suite):
        """Of a script: no other process can import it."""

    known = suite.load("vaes")
    own = Mine(**{part.name: getattr(known, part.name) for part in fields(Suite) if part.init})
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs").rows
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    found = []
    for asked in (known, own):
        matcher = Matcher(asked)
        ready(matcher)
        found.append(audit.examine(rows, "pairs", judges.load("lexical"), matcher).metrics())
    assert found[0] == found[1] and "goes on alone" not in caplog.text


def test_costs_of_all_blocks_are_told_those_that_are_none_too(small_batches: None) -> None:
    rows, judge = load_data(Data(uri="embedded:pairs?gap=0.5&size=90&seed=3"), "pairs").rows, _Paid()
    costs = audit.examine(rows, "pairs", judge, Matcher(suite.load("vaes"))).costs
    assert judge.asked > 100
    assert costs == {
        "cost/judge_calls": judge.asked,
        "cost/judge_tokens": 10 * judge.asked,
        "cost/judge_cache_hits": 0,
    }


def test_labels_of_a_sheet_are_found_in_every_block(small_batches: None, tmp_path: Path) -> None:
    """A sheet's hundred rows lie in eight blocks: each has its row's number and its label is counted once."""
    file = tmp_path / "pairs.jsonl"
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs").rows
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    matcher, judge = Matcher(suite.load("vaes")), judges.load("lexical")
    sheet = pd.DataFrame(list(audit.examine(stream(Data(uri=str(file))), "pairs", judge, matcher, real=True).sheet))
    assert sheet["row"].max() > 280 and len(sheet) == 100
    sheet[["chosen_label", "rejected_label"]] = "support", "oppose"
    sheet.to_csv(tmp_path / "labels.csv", index=False)
    prepared = audit.prepare(str(file), judge, labels=str(tmp_path / "labels.csv"))
    found = audit.examine(prepared.data, "pairs", judge, prepared.matcher, labels=prepared.labels)
    assert found.overall.labelled is not None and found.overall.labelled.count == 100
    assert sum(own.labelled.count for own in found.topics.values() if own.labelled is not None) == 100
    # All labelled pairs oppose each other: what the judge reads there as less is put right.
    assert found.overall.labelled.estimates["pairwise"].value > 0.9 > found.overall.gap.pairwise.value


@pytest.mark.parametrize("judge", [_Deadly, _Unpicklable, _Homesick])
def test_what_lost_processes_were_to_read_is_read_here(
    judge: type[_Counting], small_batches: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs")
    matcher = Matcher(suite.load("vaes"))
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    ready(matcher)
    audited = audit.examine(data.rows, "pairs", judge(), matcher)
    assert audited.metrics() == audit.examine(data.rows, "pairs", _Counting(), matcher).metrics()
    assert audited.rows == 300 and caplog.text.count("this one goes on alone") == 1


def test_while_others_are_busy_rows_are_read_here_and_come_in_their_order(
    small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only other worker has two blocks of 40 in hand and ends none before this process has read three."""
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=300&seed=3"), "pairs").rows
    matcher, judge = Matcher(suite.load("vaes")), judges.load("lexical")
    numbers = {str(row): number for number, row in enumerate(rows, 1)}
    read, read_three = read_rows._read_here, threading.Event()
    begun, here = list[int](), list[int]()

    def first_of(task: read_rows.Task) -> int:
        return numbers[str(next(iter(task.block.rows(blocks.ReadCounts()))))]

    def read_here(task: read_rows.Task, judge: Judge | None, matcher: Matcher) -> read_rows.Part:
        if threading.current_thread() is threading.main_thread():
            here.append(first_of(task))
            if len(here) == 3:
                read_three.set()
        return read(task, judge, matcher)

    class Pool:
        workers, own = 1, 6

        def begin(self, work: Callable[[Any], Any], given: Any) -> Future[Any]:
            if not isinstance(given, read_rows.Task):  # what it prepares
                done = Future[Any]()
                done.set_result(None)
                return done
            begun.append(first_of(given))
            return executor.submit(lambda: work(given) if read_three.wait(60) else None)

    @contextmanager
    def pool(matcher: Matcher) -> Iterator[Pool]:
        yield Pool()

    monkeypatch.setattr(read_rows, "_processes", pool)
    monkeypatch.setattr(read_rows, "_read_here", read_here)
    with ThreadPoolExecutor(1) as executor:
        said = list(read_rows.read_rows(tasks(blocks.given(rows), matcher), judge, matcher))
    assert [numbers[str(part.first)] for part in said] == [1, 41, 81, 121, 161, 201, 241, 281]
    assert begun[:2] == [1, 41] and here[:3] == [81, 121, 161]


@pytest.mark.parametrize(("cores", "judge"), [(1, _Counting), (2, _Counting), (2, _Deadly)])
def test_batches_are_drawn_as_they_are_read(
    cores: int, judge: type[_Counting], small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the whole source: a few batches in hand beside the one that is read, on any number of cores."""
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    rows = load_data(Data(uri="embedded:pairs?gap=0.5&size=40&seed=3"), "pairs").rows
    matcher, drawn = Matcher(suite.load("vaes")), 0

    def given() -> Iterator[blocks.Block]:
        nonlocal drawn
        for _ in range(60):
            drawn += 1
            yield blocks.GivenRows(rows)

    parts = read_rows.read_rows(tasks(given(), matcher), judge(), matcher)
    ahead = [drawn - number for number, _ in enumerate(parts)]
    assert len(ahead) == 60
    assert max(ahead) <= 1 + read_rows.FEW + (1 + read_rows._AHEAD + read_rows._OWN) * (cores - 1)


def test_long_rows_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A block ends with the row that passes the bound: six rows of 300 characters where 1,000 are allowed."""
    monkeypatch.setattr(blocks, "CHARACTERS", 1_000)
    said = [{"role": "assistant", "content": "x" * 281}]  # with the names of the roles 300 in all
    row = {"prompt": [{"role": "user", "content": "y" * 6}], "completion": said}
    assert [len(block.given) for block in blocks.given([row] * 6)] == [4, 2]
    said = [{"role": "assistant", "content": "x" * 290}]
    row = {"prompt": [{"role": "user", "content": "y" * 10}], "completion": said}
    assert [len(batch) for batch in exchanges.batches([row] * 6)] == [4, 2]
    lines = [Line(number, b"x" * 300) for number in range(1, 7)]
    reading = Reading("data", "sft", Layout("messages", FORMATS["messages"]))
    assert [len(block.unread) for block in blocks.raw(reading, lines, blocks.ReadCounts())] == [4, 2]


def test_a_script_without_a_main_guard_may_audit(tmp_path: Path) -> None:
    """Processes are started under a script that would audit once more if it were imported by them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from valuedrift_mlflow import judges, suite\n"
        "from valuedrift_mlflow.data.datasets import load_data\n"
        "from valuedrift_mlflow.data.settings import Data\n"
        "from valuedrift_mlflow.data import blocks\n"
        "from valuedrift_mlflow.value_gap import audit, read_rows\n"
        "from valuedrift_mlflow.value_gap.matching import Matcher\n"
        "blocks.ROWS, read_rows.FEW = 20, 1\n"
        "rows = load_data(Data(uri='embedded:pairs?size=100'), 'pairs').rows\n"
        "print('rows', audit.examine(rows, 'pairs', judges.load('lexical'), Matcher(suite.load('vaes'))).rows)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == ["rows 100"], done.stderr
