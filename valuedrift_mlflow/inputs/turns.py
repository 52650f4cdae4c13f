"""How threads of one process take turns at Python's interpreter."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Python lets a thread run for 5 ms before another one gets its turn. PyTorch gives its turn away at every operation,
# and takes microseconds for each of a small model: beside a thread that is all Python, as a judge that reads texts, a
# model then speaks up to 80 times more slowly (measured). With a fiftieth of that, three times: two cores for three.
_TURN_S = 1e-4
_taken = threading.Lock()
_inside = 0
_before = 0.0


@contextmanager
def short_turns() -> Iterator[None]:
    """Let threads take shorter turns while something is done beside a training, so that it goes on meanwhile."""
    global _inside, _before
    with _taken:
        if not _inside:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, _TURN_S))
        _inside += 1
    try:
        yield
    finally:
        with _taken:
            _inside -= 1
            if not _inside:
                sys.setswitchinterval(_before)
