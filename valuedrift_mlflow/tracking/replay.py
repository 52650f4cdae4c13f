"""Where the writes of a job lie until its store has them, and how those of a job that has ended are delivered."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.interrupts import Stopped
from valuedrift_mlflow.tracking.away import is_away, patiently, unanswered, without_retries
from valuedrift_mlflow.tracking.lease import check_free
from valuedrift_mlflow.tracking.spool import META, InUse, Spool, kept_of
from valuedrift_mlflow.tracking.store import address, shown

logger = logging.getLogger(__name__)
_PREFIX = "spool-"
_PATIENCE_S = 10  # with a store that fails while somebody looks on
_LAST_S = 1  # for a request of a process that was told to stop
_ENDS_S = 3  # for a process that ends with the one that has started it
# That of the outermost run: all runs below it write to the same one, so that there is one order.
_current: ContextVar[Spool | None] = ContextVar("spool", default=None)


def states() -> Path:
    """Where what a run needs lies while it goes on: ``.valuedrift`` beside a SQLite tracking store.

    With a tracking server it is in the working folder. ``VALUEDRIFT_STATE`` names another place.
    """
    named = os.environ.get("VALUEDRIFT_STATE")
    if named:
        return Path(named).expanduser().absolute()
    store = urlsplit(address())
    # sqlite:///FILE is relative and sqlite:////FILE absolute: either way one slash is not of the path.
    beside = Path(store.path[1:]).parent if store.scheme == "sqlite" else Path()
    return beside.absolute() / ".valuedrift"


def current() -> Spool | None:
    """Where the runs of this job write to; None where they write to the store."""
    return _current.get()


@contextmanager
def spooled(run_id: str, *others: str, folder: Path | None = None) -> Iterator[Spool]:
    """Have a run, and those opened within, write to a spool of their own; its end waits for the delivery.

    Args:
        run_id: the run.
        others: ids of runs that it is part of, the outermost last: whoever continues one of them delivers what is left.
        folder: where it lies; one of this process where it is not given.

    Raises:
        Undelivered: the store has stayed away.
    """
    place = folder or states() / f"{_PREFIX}{run_id}-{os.getpid()}"
    spool = Spool(place, [run_id, *others])
    token = _current.set(spool)
    try:
        yield spool
    except BaseException as error:
        whole = spool.close(most_s=_LAST_S) if isinstance(error, Stopped | KeyboardInterrupt) else spool.close()
        if not whole:
            error.add_note(spool.left())
        try:
            spool.check()
        except Exception as other:
            if other is not error:
                error.add_note(f"the tracking store has refused a write: {one_line(other)}")
        raise
    else:
        whole = spool.close()
        spool.check()
        if not whole:
            raise spool.undelivered()
    finally:
        _current.reset(token)


def shared_by(run_id: str, parent: int) -> Path:
    """Where a process writes that the process ``parent`` has started to work on its run."""
    return states() / f"{_PREFIX}{run_id}-{parent}-shared"


def drop_shared(run_id: str) -> None:
    """Drop what the processes have left that this one has started: another process works on the run."""
    folder = shared_by(run_id, os.getpid())
    if folder.is_dir():
        with suppress(InUse):
            spool = Spool(folder, kept_of(folder), patience_s=_ENDS_S)
            spool.drop()
            spool.close()


@dataclass(frozen=True)
class Replayed:
    """What a replay came to.

    Attributes:
        delivered: how many writes the store has got now.
        refused: of what it will never take, the reasons.
    """

    delivered: int
    refused: tuple[str, ...]


def replay(folder: Path) -> Replayed:
    """Deliver what a job has left in a folder; a second time there is nothing to deliver.

    Raises:
        InputError: it is no such folder, a process works on its run, or the store has no such run.
        Unanswered: the store is still away.
    """
    runs = kept_of(folder)
    try:
        with without_retries():
            _check_known(folder)
            check_free(runs[-1], str(folder))
    except Exception as error:
        if is_away(error, sure=True):
            raise unanswered(error) from error
        raise
    return _replayed(folder, runs, keep=True)


def _check_known(folder: Path) -> None:
    """Make sure that the store has the run of a folder: another one would refuse every write, for good.

    A server may have another address by now.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    run_id = kept_of(folder)[0]
    try:
        MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = f"{shown(address())}, which has no run {run_id}"
        raise InputError(problem("MLFLOW_TRACKING_URI", found, f"the store that {folder} is of")) from None


def _replayed(folder: Path, runs: Sequence[str], *, keep: bool, patience_s: float = 0) -> Replayed:
    spool = Spool(folder, runs, patience_s=patience_s)
    before = len(spool.refused)
    spool.start()
    whole = spool.drained(min(spool.wait_s, _PATIENCE_S))
    refused = tuple(spool.refused[before:])
    spool.close(keep=keep or bool(refused))
    if not whole:
        raise spool.undelivered()
    return Replayed(spool.delivered, refused)


def waiting(folder: Path) -> int:
    """How many writes in a folder the store has not got.

    Raises:
        InputError: as ``replay``.
    """
    spool = Spool(folder, kept_of(folder))
    spool.close(keep=True)
    return spool.waiting


def deliver_left(run_id: str) -> None:
    """Deliver what earlier processes have left of a run that is continued: what it has decides what is done.

    Raises:
        InputError, Unanswered: as ``replay``.
    """
    for told in sorted(states().glob(f"{_PREFIX}*/{META}")):
        if run_id in (runs := kept_of(told.parent)):
            patiently(_check_known)(told.parent)
            try:
                _replayed(told.parent, runs, keep=False, patience_s=_ENDS_S)
            except InUse:  # of a process that sleeps: it drops all when it wakes, as it is no longer the run's owner
                logger.warning("what a process has left of the run in %s is not delivered: it is in use", told.parent)
