"""Writes on their way to the tracking store: on disk first, then delivered in order by one thread beside the training.

A folder has ``writes.jsonl`` (a line for each write), ``delivered.jsonl`` (a line for each that the store has, or has
refused) and the files of artifacts. Both only grow, so that a process may end at any time.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import filelock

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.interrupts import TakenOver
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.turns import short_turns
from valuedrift_mlflow.tracking.away import (
    StayedAway,
    is_away,
    is_there,
    patience,
    pause_after,
    whole_number,
    without_retries,
)
from valuedrift_mlflow.tracking.delivery import METRICS, Attempt, deliver
from valuedrift_mlflow.tracking.lease import check_owner
from valuedrift_mlflow.tracking.spool_files import append, files_in, lay_aside, lines_of

logger = logging.getLogger(__name__)
META, _WRITES, _DELIVERED, _FILES, _LOCK = "runs.json", "writes.jsonl", "delivered.jsonl", "files", "lock"
_SCRATCH = "scratch"
_SHOWN = 160  # characters of what a failed request says
_AT_ONCE = 1000  # the most metrics that MLflow takes in one request
BYTES = "VALUEDRIFT_SPOOL_BYTES"
_MOST = 50_000_000_000


@dataclass(frozen=True)
class _Write:
    number: int
    kind: str
    content: Mapping[str, object]
    size: int  # bytes of its files
    old: bool = False  # left by another process, which may have delivered it


class _Put(TypedDict):
    """A line of what was written."""

    number: int
    kind: str
    content: dict[str, object]
    size: int


class _Told(TypedDict):
    """A line of what was delivered: the numbers of its writes, LoggedModels that it made, why it was refused."""

    of: list[int]
    models: NotRequired[dict[str, str]]
    refused: NotRequired[str]


class InUse(InputError):
    """Another process writes to a folder."""


class Undelivered(StayedAway):
    """The store has stayed away: what was written lies on disk."""


class Spool:
    """The writes of one process that its store has not got yet.

    Attributes:
        folder: where they lie.
        wait_s: seconds for which whoever waits bears a store that fails.
    """

    def __init__(self, folder: Path, runs: Sequence[str], *, patience_s: float = 0) -> None:
        """Open a folder, with what an earlier process has left in it.

        ``runs`` are those that it is of, the outermost last.

        Raises:
            InUse: another process has it open, and has not closed it within ``patience_s``.
            InputError: a setting is no number.
        """
        self.wait_s, self._most = patience(), whole_number(BYTES, _MOST)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = filelock.FileLock(folder / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=patience_s)
        except filelock.Timeout:
            mend = "the job that writes it is still running: wait for its end"
            raise InUse(problem(str(folder), "in use", "a folder that no process writes to", mend)) from None
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)  # of a process that was killed
        if not (folder / META).is_file():
            (folder / META).write_text(json.dumps(list(runs)), encoding="utf-8")
        self.models: dict[str, str] = {}
        self.refused: list[str] = []
        self.delivered = 0  # by this process
        self._count, self._pending = self._left()
        self._bytes = sum(write.size for write in self._pending)
        self._adding = threading.Lock()  # one write is put down at a time: their order is that of their numbers
        self._changed = threading.Condition()
        self._errors: list[Exception] = []
        self._failing: float | None = None  # since when every attempt has failed
        self._reason = ""
        self._gave_up = self._closing = self._dropped = False
        self._thread: threading.Thread | None = None

    def _left(self) -> tuple[int, deque[_Write]]:
        done: set[int] = set()
        for line in lines_of(self.folder / _DELIVERED):
            told: _Told = json.loads(line)
            done |= set(told["of"])
            self.models |= told.get("models", {})
            self.refused += [told["refused"]] if "refused" in told else []
        pending: deque[_Write] = deque()
        count = 0
        for line in lines_of(self.folder / _WRITES):
            put: _Put = json.loads(line)
            count = put["number"]
            if count not in done:
                pending.append(_Write(count, put["kind"], put["content"], put["size"], old=True))
        return count, pending

    # Writing ---------------------------------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        content: Mapping[str, object],
        files: Path | None = None,
        *,
        copied: bool = True,
        checked: bool = True,
    ) -> None:
        """Put a write down; it is delivered after those before it.

        Args:
            kind: what it is, as ``delivers`` has named it.
            content: what is written, as JSON has it.
            files: a file or folder that goes with it.
            copied: whether it may be changed later; else it is linked where the disk can do that.
            checked: whether an error of an earlier write is raised here.

        Raises:
            Exception: the store has refused an earlier write: its error.
            Undelivered: no more bytes may be kept, and the store stays away.
        """
        if checked:
            self.check()
        size = 0 if files is None else sum(path.stat().st_size for path in files_in(files))
        with self._adding:
            self._room(size)
            # Counted first, and written down: a process that is told to stop may leave this at any place.
            self._count = number = self._count + 1
            if files is not None:
                lay_aside(files, self.folder / _FILES / str(number), copied=copied)
            append(self.folder / _WRITES, {"number": number, "kind": kind, "content": content, "size": size})
            with self._changed:
                if self._dropped:
                    return
                self._pending.append(_Write(number, kind, content, size))
                self._bytes += size
                self._start()
                self._changed.notify_all()

    def scratch(self) -> Path:
        """A place on the same disk for files that will be put down: then they need not be copied."""
        (self.folder / _SCRATCH).mkdir(exist_ok=True)
        return self.folder / _SCRATCH

    def _room(self, size: int) -> None:
        """Wait until so many more bytes may be kept. What alone is more may be kept alone."""
        began = time.monotonic()
        with self._changed:
            while size and self._bytes and self._bytes + size > self._most:
                if self._failed(began, self.wait_s):
                    raise self.undelivered(f"{self._bytes + size:,} bytes would be kept ({BYTES}={self._most:,})")
                self._changed.wait(1)

    def check(self) -> None:
        """Raise the error of a write that the store has refused, with those of others as notes; once."""
        with self._changed:
            errors, self._errors = self._errors, []
        for other in errors[1:]:
            errors[0].add_note(f"refused as well: {one_line(other)}")
        if errors:
            raise errors[0]

    # Delivery --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a request that hangs must not keep a process alive that has said what is left.
            self._thread = threading.Thread(target=self._deliver_all, name="spool", daemon=True)
            self._thread.start()

    def start(self) -> None:
        """Begin to deliver what an earlier process has left."""
        with self._changed:
            self._start()

    def _deliver_all(self) -> None:
        try:
            while batch := self._next():
                with short_turns():
                    self._deliver(batch)
        except TakenOver:
            self.drop()
        except Exception as error:  # what has been delivered cannot be noted: the disk is full, or gone
            with self._changed:
                self._reason = one_line(error)
                self._errors.append(error)
        finally:
            self._lock.release()

    def _next(self) -> list[_Write]:
        """The next write with those after it that go in the same request; empty where there will be none."""
        with self._changed:
            while not self._pending and not self._closing:
                self._changed.wait()
            if self._closing and self._failing:
                return []
            batch: list[_Write] = []
            for write in self._pending:
                if batch and not _one_request([*batch, write]):
                    break
                batch.append(write)
            return batch

    def _deliver(self, batch: list[_Write]) -> None:
        attempts, doubles = 0, 0
        while not (self._closing and self._failing):
            try:
                made = self._attempt(batch, repeated=bool(attempts))
            except Exception as error:
                attempts += 1
                doubles += is_there(error)
                if is_away(error):
                    self._pause(error, pause_after(attempts))
                elif not is_there(error) or doubles > 2:
                    self._refuse(batch, error)
                    return
            else:
                self._done(batch, {} if made is None else {"models": made})
                return

    def _attempt(self, batch: list[_Write], *, repeated: bool) -> dict[str, str] | None:
        first = batch[0]
        files = next((self.folder / _FILES / str(first.number)).glob("*"), None)
        attempt = Attempt(files, repeated or first.old, self.models)
        content = first.content
        if len(batch) > 1:
            content = {**content, "metrics": [one for write in batch for one in _metrics(write)]}
        with without_retries():
            check_owner(sure=True)
            made = deliver(first.kind, attempt, content)
        return None if made is None else {str(content["model"]): made}

    def _done(self, batch: list[_Write], told: Mapping[str, Mapping[str, str]]) -> None:
        append(self.folder / _DELIVERED, {"of": [write.number for write in batch], **told})
        for write in batch:
            shutil.rmtree(self.folder / _FILES / str(write.number), ignore_errors=True)
        with self._changed:
            if self._failing is not None:
                logger.warning("the tracking store answers again")
            self._failing, self._gave_up = None, False
            self.models |= told.get("models", {})
            self._leave(batch)
            self.delivered += len(batch)

    def _refuse(self, batch: list[_Write], error: Exception) -> None:
        """Note what the store will never take, and go on with what follows."""
        if len(batch) > 1:  # one of them is it
            for write in batch:
                self._deliver([write])
            return
        said = f"{batch[0].kind}: {one_line(redacted(str(error)))}"
        append(self.folder / _DELIVERED, {"of": [batch[0].number], "refused": said})
        with self._changed:
            self.refused.append(said)
            self._errors.append(error)
            self._leave(batch)

    def _leave(self, batch: Sequence[_Write]) -> None:
        if self._dropped:
            return
        for write in batch:
            self._pending.popleft()  # it is the first: nothing else takes any
            self._bytes -= write.size
        self._changed.notify_all()

    def _pause(self, error: Exception, seconds: float) -> None:
        with self._changed:
            self._reason = one_line(redacted(str(error)), _SHOWN)
            if self._failing is None:
                self._failing = time.monotonic()
                said = "the tracking store does not answer (%s): what is written is kept in %s until it does"
                logger.warning(said, self._reason, self.folder)
            self._changed.notify_all()
            # Every write that is put down meanwhile wakes this thread too.
            until = time.monotonic() + seconds
            while not self._closing and (rest := until - time.monotonic()) > 0:
                self._changed.wait(rest)

    def drop(self) -> None:
        """Forget what the store has not got, and what is put down from now on: another process does the work now."""
        with self._changed:
            self._dropped = self._closing = True
            self._pending.clear()
            self._errors.clear()
            self._bytes = 0
            self._changed.notify_all()

    # Waiting ---------------------------------------------------------------------------------------------------------

    def wait(self) -> bool:
        """As ``drained``.

        Raises:
            Exception: the store has refused a write: its error.
            TakenOver: another process works on the run.
        """
        whole = self.drained()
        check_owner()
        self.check()
        return whole

    def drained(self, wait_s: float | None = None, most_s: float = math.inf) -> bool:
        """Wait until the store has everything; False where it has failed for ``wait_s``, and at once from then on.

        No longer than ``most_s``, also for one that is only slow.
        """
        began = time.monotonic()
        with self._changed:
            while self._pending:
                rest = most_s - (time.monotonic() - began)
                if self._gave_up or rest <= 0 or self._failed(began, self.wait_s if wait_s is None else wait_s):
                    self._gave_up = True
                    break
                if self._thread is not None and not self._thread.is_alive():
                    break
                self._changed.wait(min(0.5, rest))
            return not self._pending

    def bears(self, error: Exception, since: float) -> bool:
        """Whether who could not reach the store itself since then is to try again; waits a moment before it says so."""
        with self._changed:
            self._reason = one_line(redacted(str(error)), _SHOWN)
            if self._gave_up or time.monotonic() - since >= self.wait_s:
                return False
        time.sleep(1)
        return True

    def _failed(self, began: float, seconds: float) -> bool:
        return self._failing is not None and time.monotonic() - max(self._failing, began) >= seconds

    def undelivered(self, why: str = "") -> Undelivered:
        """The error that says what lies where, and how it is delivered."""
        said = f"the tracking store does not answer ({self._reason})"
        return Undelivered("; ".join(filter(None, (said, why, self.left()))))

    @property
    def waiting(self) -> int:
        """How many writes the store has not got."""
        return len(self._pending)

    def left(self) -> str:
        """What the store has not got, and how it gets it; empty where it has everything."""
        count = self.waiting
        return f"{count} writes are kept: deliver them with valuedrift replay {self.folder}" if count else ""

    def close(self, *, keep: bool = False, most_s: float = 5) -> bool:
        """End the delivery; whether the store has everything. Then the folder goes, unless it is to be kept.

        What is on its way is waited for no longer than ``most_s``.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            empty, dropped, thread = not self._pending, self._dropped, self._thread
        if thread is None:
            self._lock.release()
        else:  # a request that hangs is not waited for
            thread.join(None if empty and not dropped else most_s)
        if empty and not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()
        return empty


def _one_request(batch: Sequence[_Write]) -> bool:
    """Whether writes can go in one request: metrics of one run, up to a number."""
    runs = {(write.kind, str(write.content.get("run_id")), write.old) for write in batch}
    return len(runs) == 1 and batch[0].kind == METRICS and sum(len(_metrics(write)) for write in batch) <= _AT_ONCE


def _metrics(write: _Write) -> list[object]:
    metrics = write.content["metrics"]
    assert isinstance(metrics, list)
    return metrics


def kept_of(folder: Path) -> list[str]:
    """The runs that a folder of writes is of: one, and those that it is part of.

    Raises:
        InputError: it is no such folder.
    """
    try:
        first, *above = map(str, json.loads((folder / META).read_text(encoding="utf-8")))
        return [first, *above]
    except (OSError, ValueError, TypeError):
        raise InputError(
            problem("folder", folder, "a folder with the writes of a run, as a job has named it")
        ) from None
