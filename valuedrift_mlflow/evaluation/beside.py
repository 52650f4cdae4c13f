"""What is done beside a training: by one thread, in order, while the next steps run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from valuedrift_mlflow.inputs.interrupts import Stopped
from valuedrift_mlflow.inputs.turns import short_turns

# A thread, not a process: a judge may hold a client or a model, which cannot be handed over, and what takes long (a
# server's answer, a forward pass, numpy, files) lets the training's thread run meanwhile. A judge that is all Python
# reads many answers in other processes (`judges/many.py`).


class Beside:
    """Work that is handed over and done later, one piece after another.

    What follows a piece that went wrong is not done: a checkpoint is never called complete whose measurement failed.
    As a context it waits for its work at the end, also where the training has failed; not where another process works
    on the run.
    """

    def __init__(self) -> None:
        """Nothing is started before there is work."""
        self._thread: ThreadPoolExecutor | None = None
        self._open: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Hand over ``work``. It must touch neither the live model nor the random state of the process."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="beside-training")
        self._open.append(self._thread.submit(self._done, work))

    def _done(self, work: Callable[[], None]) -> None:
        if self._error is None:
            try:
                with short_turns():
                    work()
            except BaseException as error:
                self._error = error
                raise

    def check(self) -> None:
        """Raise what went wrong in work that has ended; does not wait."""
        while self._open and self._open[0].done():
            self._open.popleft().result()

    def finish(self) -> None:
        """Wait until all work is done, and raise what went wrong."""
        while self._open:
            self._open.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop = error if isinstance(error, Stopped) else None
        try:
            if stop is None or stop.saves:
                self.finish()
        except BaseException as other:
            if error is None:
                raise
            if other is not error:
                error.add_note(f"beside it went wrong: {type(other).__name__}: {other}")
        finally:
            if self._thread is not None:
                # A process that is told to stop has waited as long as it could.
                self._thread.shutdown(wait=stop is None, cancel_futures=stop is not None)
