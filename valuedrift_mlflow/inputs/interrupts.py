"""What a process does that is told to stop: it ends at a place from which the work can go on, and soon.

SIGTERM is a notice of preemption (clusters, containers), SIGINT is Ctrl-C, SIGHUP a terminal that was closed. Within
a training step the process goes on to the end of the step, where its state is saved; elsewhere ``Stopped`` is raised
where it is. What takes longer is cut off after half of the ten seconds that there are (``VALUEDRIFT_GRACE``), and
before they are over the process ends, whatever it does.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from valuedrift_mlflow.inputs import scratch
from valuedrift_mlflow.inputs.errors import InputError, problem

GRACE, _SECONDS = "VALUEDRIFT_GRACE", 10.0  # from the notice to the end of the process
_CUT_AT, _END_AT = 0.5, 0.9  # shares of these seconds
# One notice may come several times: `timeout` and `mlflow run` send it to a process and to the group it is in.
_TOGETHER = 1.0


class Stopped(BaseException):
    """This process was told to stop. No ``Exception``: whoever goes on after one failure must not after this.

    Attributes:
        code: the process's exit code.
        saves: whether the state at the end of a step is saved first.
        mend: how to go on.
    """

    code, saves, mend = 1, True, ""

    def __str__(self) -> str:
        """The reason, and how to go on, on one line."""
        return "; ".join(filter(None, (" ".join(map(str, self.args)), self.mend)))


class Interrupted(Stopped, KeyboardInterrupt):
    """By SIGINT."""

    code = 128 + signal.SIGINT


class Terminated(Stopped, SystemExit):
    """By SIGTERM: a script that does not catch it ends with its code, without a traceback."""

    code = 128 + signal.SIGTERM


class HungUp(Terminated):
    """By SIGHUP: the terminal was closed, or the connection to it was lost."""

    code = 129


class TakenOver(Stopped):
    """Another process works on the run: nothing more may be written to it."""

    saves = False


def seconds(setting: str, default: float) -> float:
    """A setting of the environment that is a number of seconds.

    Raises:
        InputError: it is no such number.
    """
    text = os.environ.get(setting, "") or str(default)
    with suppress(ValueError):
        if 1 <= float(text) < math.inf:
            return float(text)
    raise InputError(problem(setting, text, "a number of seconds of at least 1"))


_BY_SIGNAL: dict[int, type[Stopped]] = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}
if sys.platform != "win32":
    _BY_SIGNAL[signal.SIGHUP] = HungUp


class _Watch:
    """The notice that has come, and what this process is doing."""

    def __init__(self, second_ends: bool) -> None:
        self.pid = os.getpid()
        self.stop: Stopped | None = None
        self.at = 0.0
        self.holding = False
        self.seen = False
        self.said = False
        self.over = threading.Event()
        self.told: list[Callable[[Stopped], None]] = []
        self.second_ends = second_ends
        self.grace = seconds(GRACE, _SECONDS)
        self.before: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}
        self._nudged = False

    def install(self) -> None:
        """Take the signals that nobody else has taken; one that is ignored (``nohup``) stays so."""
        for number in _BY_SIGNAL:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self.before[number] = signal.signal(number, self.on_signal)

    def restore(self) -> None:
        self.over.set()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:  # a worker that was forked from this process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        nudged, self._nudged = self._nudged, False
        if self.stop is None:
            self.request(_BY_SIGNAL[number](f"stopped by {signal.Signals(number).name}"))
        elif nudged:
            if not self.seen:
                raise self.stop
        elif self.second_ends and time.monotonic() - self.at > _TOGETHER:
            os._exit(128 + number)

    def request(self, stop: Stopped) -> None:
        if self.stop is not None:
            return
        stop.mend = stop.mend or next((mend for _, mend in _endings if mend), "")
        self.at, self.stop = time.monotonic(), stop
        if isinstance(stop, Interrupted | Terminated):
            threading.Thread(target=self._keep_time, daemon=True).start()
        for tell in self.told:
            tell(stop)
        if not self.holding and not self.told:
            if threading.current_thread() is threading.main_thread():
                raise stop
            self._nudge()

    def _nudge(self) -> None:
        """Raise ``Stopped`` in the main thread, from another one."""
        taken = next(iter(self.before), None)
        if taken is not None:
            self._nudged = True
            signal.pthread_kill(threading.main_thread().ident or 0, taken)

    def _keep_time(self) -> None:
        # Another process that does the work keeps the time itself.
        if not self.over.wait(_CUT_AT * self.grace) and not self.seen and not self.told:
            self._nudge()
        if not self.over.wait((_END_AT - _CUT_AT) * self.grace):
            self._end()

    def _end(self) -> None:
        assert self.stop is not None
        # Beside this thread: a store that does not answer must not hold up the end.
        closing = threading.Thread(target=_close_all, daemon=True)
        closing.start()
        closing.join(0.7)
        self.say()
        scratch.remove()
        os._exit(self.stop.code)

    def say(self) -> None:
        if not self.said:
            self.said = True
            # Not by `print`: the thread that was cut off may hold its lock.
            with suppress(OSError):
                os.write(2, f"valuedrift: {self.stop}\n".encode())


_watch: _Watch | None = None
_endings: list[tuple[Callable[[], None], str]] = []  # of the runs that are open, the outermost first


def _close_all() -> None:
    for end, _ in reversed(list(_endings)):
        with suppress(Exception):
            end()


@contextmanager
def minded(*, ends: bool = False, second_ends: bool = True) -> Iterator[None]:
    """Stop as this module says at SIGTERM, SIGINT and SIGHUP, in the block; one line tells of it.

    Does nothing in another thread than the main one, and inside another such block.

    Args:
        ends: the process ends behind the block, with the exit code of the signal.
        second_ends: a second signal ends the process at once.

    Raises:
        InputError: ``VALUEDRIFT_GRACE`` is no number of seconds.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _watch = _Watch(second_ends)
    watch.install()
    try:
        yield
    except Stopped as stop:
        watch.stop, watch.seen = stop, True
        watch.say()
        if not ends:
            raise
        with suppress(OSError):  # its terminal may be gone
            sys.stdout.flush()
        raise SystemExit(stop.code) from None
    finally:
        # Where the process ends it may still wait for threads: the time is kept, and signals that come late are ours.
        if not (ends and watch.stop):
            watch.restore()
            _watch = None


@contextmanager
def ending(end: Callable[[], None], mend: str = "") -> Iterator[None]:
    """In the block something is open that ``end`` closes where there is no time left; ``mend`` says how to go on."""
    _endings.append((end, mend))
    try:
        yield
    finally:
        _endings.pop()


@contextmanager
def passed_on(tell: Callable[[Stopped], None]) -> Iterator[None]:
    """In the block another process does the work: ``tell`` is called at a notice, and nothing is raised before that."""
    if _watch is None:
        yield
        return
    _watch.told.append(tell)
    try:
        yield
    finally:
        _watch.told.remove(tell)


def asked() -> Stopped | None:
    """The notice that has come."""
    return _watch.stop if _watch is not None else None


def request(stop: Stopped) -> None:
    """Stop as at a signal, for a reason of our own; from any thread."""
    if _watch is not None:
        _watch.request(stop)


def seen() -> None:
    """The notice is known and everything is on its way to its end."""
    if _watch is not None:
        _watch.seen = True


def hold() -> None:
    """From now on a notice waits for ``release``: a step has begun."""
    if _watch is not None:
        _watch.holding = True


def release() -> Stopped | None:
    """The step has ended; what has come meanwhile."""
    if _watch is not None:
        _watch.holding = False
    return asked()
