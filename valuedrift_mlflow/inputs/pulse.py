"""A sign of life from long work where no terminal shows a bar: nohup, Slurm, CI."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

EVERY = 30.0  # seconds between two lines

_T = TypeVar("_T")


class Pulse:
    """Says when ``EVERY`` seconds have gone by without a line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now; ``clock`` gives seconds."""
        self._clock = clock
        self.begun = self._last = clock()

    def due(self) -> bool:
        """Whether it is time for a line; then the next is due ``EVERY`` seconds later."""
        now = self._clock()
        if now - self._last < EVERY:
            return False
        self._last = now
        return True

    def spoken(self) -> None:
        """Something else has written a line just now."""
        self._last = self._clock()

    def since(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self.begun


@contextmanager
def meanwhile(work: Callable[[], object], every: float = 0.0) -> Iterator[None]:
    """Do ``work`` again and again in a thread while the context is open, after so many seconds each time."""
    ended = threading.Event()

    def again() -> None:
        while not ended.wait(every):
            work()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def counted(
    rows: Iterable[_T], say: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[_T]:
    """The same rows; ``say`` gets a line on how many there were at least every 30 seconds in which rows come."""
    pulse = Pulse(clock)
    for number, row in enumerate(rows, 1):
        if pulse.due():
            say(f"{what}: {number:,} rows so far ({lasted(pulse.since())})")
        yield row


def lasted(seconds: float) -> str:
    """A time as a person reads it.

    >>> lasted(42), lasted(3725)
    ('42 s', '62 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
