"""Writes to the tracking store by their kinds: how each is delivered, and delivered again where a reply was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from valuedrift_mlflow.tracking.away import is_away, is_there, patience, pause_after, unanswered, without_retries

METRICS = "metrics"  # the kind of writes that go together in one request


@dataclass(frozen=True)
class Attempt:
    """What a write is delivered with.

    Attributes:
        files: its file or folder; None of a write that has none.
        repeated: whether the store may have it already, because a reply was lost.
        models: ids of LoggedModels by what they were called until they had one.
    """

    files: Path | None = None
    repeated: bool = False
    models: Mapping[str, str] | None = None

    def model(self, name: str) -> str:
        """The id of a LoggedModel."""
        return (self.models or {}).get(name, name)


_Delivers = TypeVar("_Delivers", bound=Callable[..., str | None])
# By the names that stand in the files: how each kind of write is delivered. It gives the id of a LoggedModel it makes.
_KINDS: dict[str, Callable[..., str | None]] = {}


def delivers(kind: str) -> Callable[[_Delivers], _Delivers]:
    """Say that a function delivers writes of a kind: it takes an ``Attempt`` and what was written as keywords."""

    def known(function: _Delivers) -> _Delivers:
        _KINDS[kind] = function
        return function

    return known


def deliver(kind: str, attempt: Attempt, content: Mapping[str, object]) -> str | None:
    """Bring one write to the store."""
    return _KINDS[kind](attempt, **content)


def insist(kind: str, files: Path | None, content: Mapping[str, object]) -> str | None:
    """As ``deliver``, now: a store that is away is tried again for as long as a spool would wait for it.

    Raises:
        StayedAway: so it has.
        Exception: it refuses the write.
    """
    began, attempts, doubles = time.monotonic(), 0, 0
    while True:
        try:
            with without_retries():
                return deliver(kind, Attempt(files, repeated=attempts > 0), content)
        except Exception as error:
            attempts += 1
            doubles += is_there(error)
            if is_away(error, sure=True):
                if time.monotonic() - began >= patience():
                    raise unanswered(error) from error
            elif not is_there(error) or doubles > 2:
                raise
        time.sleep(pause_after(attempts))
