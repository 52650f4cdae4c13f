"""One owner for a run: the process that works on it says so in a tag of the run, and says it again every few seconds.

A store has no "write if nobody else has": a process writes a token of its own, waits, and reads it back. The one that
reads its own owns the run. Should two do so all the same, the one whose token is gone finds that at its next heartbeat
and stops (fencing).
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.interrupts import TakenOver
from valuedrift_mlflow.inputs.processes import Process, this
from valuedrift_mlflow.inputs.reading import json_of
from valuedrift_mlflow.tracking.away import is_away, without_retries

OWNER = "valuedrift.owner"
SETTING = "VALUEDRIFT_LEASE"
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # as MLflow says of an id of no run
_STALE = 120.0  # seconds without a heartbeat after which an owner is given up
_BEATS = 8  # heartbeats in that time
_SETTLES = 1.0  # seconds in which another process's token would have come to be read

# What this process owns. Of the process and not of a call: a training's steps ask for it from far below.
_held: dict[str, Lease] = {}


@dataclass(frozen=True)
class Owner:
    """What a run's tag says of the process that works on it.

    Attributes:
        token: what only this owner has written.
        process: which it is.
        every: seconds between its heartbeats.
        beat: the last one, in seconds since 1970 by its own clock.
    """

    token: str
    process: Process
    every: float
    beat: float

    @classmethod
    def of(cls, run_id: str) -> Owner | None:
        """The owner that a run names; None where it names none that can be read."""
        from mlflow import MlflowClient

        text = MlflowClient().get_run(run_id).data.tags.get(OWNER, "")
        try:
            read: Any = json_of(text)
            told, pid = read["process"], int(read["process"]["pid"])
            host, place, boot, started = (str(told[key]) for key in ("host", "place", "boot", "started"))
            process = Process(host, place, boot, pid, started)
            found = cls(str(read["token"]), process, float(read["every"]), float(read["beat"]))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        # Whoever may write tags may write others than ours: no process has such an id, and nobody waits for ever.
        return found if 0 < pid < 2**31 and math.isfinite(found.every) and math.isfinite(found.beat) else None

    def write(self, run_id: str) -> None:
        """Name this owner in the run's tag."""
        from mlflow import MlflowClient

        MlflowClient().set_tag(run_id, OWNER, json.dumps(asdict(self)))

    @property
    def age(self) -> float:
        """Seconds since its last heartbeat, as far as the clocks of two machines agree."""
        return max(0.0, time.time() - self.beat)

    def works(self, run_id: str, stale: float) -> bool:
        """Whether it must be taken to work on the run still."""
        here = this()
        if self.process == here:
            return self.token in {lease.token for lease in _held.values()}
        if self.process.dead:
            return False
        if self.age < stale:
            return True
        if (self.process.place, self.process.boot) == (here.place, here.boot):
            return False  # by the same clock
        time.sleep(min(max(0.0, 1.3 * self.every), stale))  # its clock may be behind: does it go on?
        return Owner.of(run_id) != self

    def said(self) -> str:
        """Who it is, in a few words."""
        return f"process {self.process.pid} on {self.process.host}, last heartbeat {self.age:.0f} s ago"


def stale_after() -> float:
    """Seconds without a heartbeat after which another process may take a run over.

    Raises:
        InputError: the setting is no such number.
    """
    return interrupts.seconds(SETTING, _STALE)


class Lease:
    """That this process owns a run, until it is given back or found lost."""

    def __init__(self, run_id: str) -> None:
        """Nothing is taken yet."""
        self.run_id = run_id
        self.stale = stale_after()
        self.every = self.stale / _BEATS
        self.token = secrets.token_hex(8)
        self.lost: TakenOver | None = None
        self._known = self._asked = -math.inf  # when it was last known, and asked, that the run is owned
        self._asking = threading.Lock()
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self, *, new: bool = False) -> None:
        """Become the owner; of a ``new`` run nobody else knows.

        Raises:
            InputError: another process works on the run.
        """
        if not new:
            before = Owner.of(self.run_id)
            if before is not None and before.works(self.run_id, self.stale):
                raise _refused("--resume", self.run_id, before, self.stale)
        self._beat()
        if not new:
            time.sleep(min(_SETTLES, self.every))
            after = Owner.of(self.run_id)
            if after is not None and after.token != self.token:
                raise _refused("--resume", self.run_id, after, self.stale)
        _held[self.run_id] = self
        self._beating.start()

    def _beat(self) -> None:
        begun = time.monotonic()
        Owner(self.token, this(), self.every, time.time()).write(self.run_id)
        self._known = self._asked = begun

    def _keep(self) -> None:
        while not self._over.wait(self.every):
            # Of any kind: a store that is away for a while. Without heartbeats a run that is worked on would be free.
            # Without retries: one that hangs in them would come late, behind the end too.
            with suppress(Exception), self._asking, without_retries():
                self._asked = time.monotonic()
                if not self._mine():
                    return
                self._beat()

    def _mine(self) -> bool:
        """Whether the run still names this owner; where it does not, the process is asked to stop."""
        begun = time.monotonic()
        owner = Owner.of(self.run_id)
        if self._over.is_set() or (owner is not None and owner.token == self.token):
            self._known = begun
            return True
        if self.lost is None:
            taker = f"by {owner.said()}" if owner is not None else "by nobody known: its owner's tag was removed"
            self.lost = TakenOver(f"run {self.run_id} was taken over {taker}; nothing more is written to it here")
            interrupts.request(self.lost)
        return False

    def check(self, *, sure: bool) -> None:
        """See ``check_owner``."""
        # Asked anew after a pause: a process that was asleep must not write before its next heartbeat.
        before = self._known if sure else self._asked
        if self.lost is None and time.monotonic() - before > self.stale / 2:
            self._ask(sure=sure)
        if self.lost is not None:
            raise self.lost

    def _ask(self, *, sure: bool) -> None:
        if not self._asking.acquire(blocking=sure):
            return  # the heartbeat does, of a store that is slow
        try:
            self._asked = time.monotonic()
            with without_retries():
                self._mine()
        except Exception as error:
            if sure or not is_away(error):
                raise
        finally:
            self._asking.release()

    def give_back(self) -> None:
        """Own the run no longer; one that is lost is left alone."""
        from mlflow import MlflowClient

        self._over.set()
        if self._beating.is_alive():
            self._beating.join(_SETTLES)  # or its last heartbeat would come behind the end
        _held.pop(self.run_id, None)
        with suppress(Exception), without_retries():  # what is left in the tag grows stale
            owner = Owner.of(self.run_id)
            if self.lost is None and owner is not None and owner.token == self.token:
                MlflowClient().delete_tag(self.run_id, OWNER)


@contextmanager
def own(run_id: str, *, new: bool = False) -> Iterator[None]:
    """Own a run in the block; see ``Lease.take``.

    Raises:
        InputError: another process owns it, or this one does already.
    """
    lease = Lease(run_id)
    lease.take(new=new)
    try:
        yield
    finally:
        lease.give_back()


def is_owned(run_id: str) -> bool:
    """Whether this process owns a run."""
    return run_id in _held


def check_owner(*, sure: bool = False) -> None:
    """Make sure that this process still owns the runs that it works on, as far as it is known.

    Args:
        sure: it must have been known a moment ago, for whoever writes to the store now. Else nobody waits for a store
            that is away: what is put down for it is not delivered before it answers.

    Raises:
        TakenOver: one of them is owned by another process.
        Exception: the store is away, where it must be asked.
    """
    for lease in list(_held.values()):
        lease.check(sure=sure)


def check_free(run_id: str, field: str = "--resume") -> None:
    """Find that no process works on a run, without becoming its owner; a run that is not there is free.

    Raises:
        InputError: one does.
    """
    from mlflow.exceptions import MlflowException

    stale = stale_after()
    try:
        owner = Owner.of(run_id)
    except MlflowException as error:
        if error.error_code not in _UNKNOWN:
            raise
        return  # who takes it up says so
    if owner is not None and owner.works(run_id, stale):
        raise _refused(field, run_id, owner, stale)


def _refused(field: str, run_id: str, owner: Owner, stale: float) -> InputError:
    found = f"{run_id}, owned by {owner.said()}"
    mend = f"end it there (kill {owner.process.pid}), or wait until {stale:.0f} s have gone without one"
    return InputError(problem(field, found, "a run that no process works on", mend))
