"""Where the writes of a job lie until its store has them, and how those of a job that has ended are delivered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.tracking.spool import META, Spool, kept_of
from valuedrift_mlflow.tracking.store import address, shown

_PREFIX = "spool-"
_PATIENCE_S = 10  # with a store that fails while somebody looks on
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
def spooled(run_id: str, *others: str) -> Iterator[Spool]:
    """Have a run, and those opened within, write to a spool of their own; its end waits for the delivery.

    Args:
        run_id: the run.
        others: ids of runs that it is part of: whoever continues one of them delivers what is left.

    Raises:
        Undelivered: the store has stayed away.
    """
    spool = Spool(states() / f"{_PREFIX}{run_id}-{os.getpid()}", shown(address()), [run_id, *others])
    token = _current.set(spool)
    try:
        yield spool
    except BaseException as error:
        if not spool.close():
            error.add_note(spool.left())
        raise
    else:
        whole = spool.close()
        spool.check()
        if not whole:
            raise spool.undelivered()
    finally:
        _current.reset(token)


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
        InputError: it is no such folder, a job still writes to it, or it is of another store.
        Undelivered: the store is still away.
    """
    return _replayed(folder, keep=True)


def _replayed(folder: Path, *, keep: bool) -> Replayed:
    store, runs = kept_of(folder)
    if store != shown(address()):
        found = shown(address())
        raise InputError(problem("MLFLOW_TRACKING_URI", found, store, "the writes in the folder are of that store"))
    spool = Spool(folder, store, runs)
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
    spool = Spool(folder, *kept_of(folder))
    spool.close(keep=True)
    return spool.waiting


def deliver_left(run_id: str) -> None:
    """Deliver what earlier processes have left of a run that is continued: what it has decides what is done.

    Raises:
        InputError, Undelivered: as ``replay``.
    """
    for told in sorted(states().glob(f"{_PREFIX}*/{META}")):
        if run_id in kept_of(told.parent)[1]:
            _replayed(told.parent, keep=False)
