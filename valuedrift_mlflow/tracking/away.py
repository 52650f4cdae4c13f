"""What a failed call of the tracking store says: the store is away, it has the thing already, or it refuses it."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from valuedrift_mlflow.inputs.errors import InputError, Unanswered, one_line, problem
from valuedrift_mlflow.inputs.redaction import redacted

WAIT = "VALUEDRIFT_SPOOL_WAIT"
_PATIENCE_S = 600
_LONGEST_PAUSE = 15.0  # seconds between two attempts
_ATTEMPTS = 5  # of what the store says it has, and does not show
_SHOWN = 160  # characters of what a failed request says

# As MLflow names what may pass by itself; its own network errors and a gateway's pages are INTERNAL_ERROR.
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
_PASSING |= {"DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"}
# Of a key that has run out: who has a new one can deliver what was kept, and who has just begun is told at once.
_LOCKED_OUT = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
_PASSING_STATUS = {408, 425, 429}  # beside all from 500
_THERE = re.compile(r"unique constraint|duplicate (key|entry)|UniqueViolation|IntegrityError", re.IGNORECASE)
_OURS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, NotImplementedError, ImportError)
_NO_FILE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_there(error: Exception) -> bool:
    """Whether the store says that it has what it was given, as it does where its first reply was lost."""
    return bool(_THERE.search(str(error)))


def is_away(error: Exception, *, sure: bool = False) -> bool:
    """Whether the same call may succeed later: the store or its artifacts do not answer, or are busy.

    It may, for one who keeps what is written, also where the user is no longer let in, and after an error of an unknown
    kind, which may be any object store's; ``sure`` leaves both out.

    >>> is_away(ConnectionRefusedError()), is_away(ValueError("a bad value"))
    (True, False)
    """
    from mlflow.exceptions import MlflowException

    if is_there(error):
        return False
    if isinstance(error, MlflowException):
        return str(error.error_code) in (_PASSING if sure else _PASSING | _LOCKED_OUT)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):  # of artifacts that are sent past the server
        return status >= 500 or status in _PASSING_STATUS
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) if sure else not isinstance(error, _NO_FILE)
    # A reply that was cut off is no JSON.
    return isinstance(error, json.JSONDecodeError) or not (sure or isinstance(error, _OURS))


def is_busy(error: Exception) -> bool:
    """Whether the same question may be answered later.

    Less than of a write: MLflow calls it an internal error too that a file is not there.
    """
    from mlflow.exceptions import MlflowException

    code = str(error.error_code) if isinstance(error, MlflowException) else ""
    return code in _PASSING and (code != "INTERNAL_ERROR" or str(error).startswith("API request to"))


def patience() -> float:
    """Seconds for which a store that is away is waited for.

    Raises:
        InputError: the setting is no whole number.
    """
    return float(whole_number(WAIT, _PATIENCE_S))


def whole_number(setting: str, default: int) -> int:
    """A setting of the environment.

    Raises:
        InputError: it is no whole number.
    """
    given = os.environ.get(setting, "")
    if given and not given.isdecimal():
        raise InputError(problem(setting, given, "a whole number"))
    return int(given) if given else default


def pause_after(attempts: int) -> float:
    """Seconds until the next attempt.

    >>> [pause_after(attempts) for attempts in (1, 2, 3, 4, 20)]
    [0.5, 1.0, 2.0, 4.0, 15.0]
    """
    return min(2.0 ** (attempts - 2), _LONGEST_PAUSE)


class StayedAway(Unanswered):
    """The store has been waited for long enough."""


def unanswered(error: Exception) -> StayedAway:
    """The error that says so of a store."""
    return StayedAway(f"the tracking store does not answer ({one_line(redacted(str(error)), _SHOWN)})")


_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def patiently(ask: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """A question that is asked again while the store is away; at last its error is what it was."""

    @wraps(ask)
    def asked(*given: _Given.args, **named: _Given.kwargs) -> _Answer:
        began, attempts = time.monotonic(), 0
        while True:
            try:
                return ask(*given, **named)
            except Exception as error:
                attempts += 1
                if not is_busy(error) or time.monotonic() - began >= patience():
                    raise
            time.sleep(pause_after(attempts))

    return asked


def insistently(work: Callable[[int], _Answer]) -> _Answer:
    """Do what makes something new in the store: again where a reply was lost, without MLflow's own blind repetition.

    ``work`` is given the number of the attempt; from the second on it looks first what the one before has made.

    Raises:
        StayedAway: the store has not answered for as long as writes wait for it.
        Exception: the store refuses: its error.
    """
    attempt, began = 1, time.monotonic()
    while True:
        try:
            with without_retries():
                return work(attempt)
        except Exception as error:
            if is_there(error):
                if attempt >= _ATTEMPTS:
                    raise
            elif not is_away(error, sure=True):
                raise
            elif time.monotonic() - began >= patience():
                raise unanswered(error) from error
        time.sleep(pause_after(attempt))
        attempt += 1


class _Retries:
    """MLflow's number of retries: none while a block of any thread wants none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0
        self.given: Callable[[], int] | None = None

    def __call__(self) -> int:
        return 0 if self.blocks or self.given is None else self.given()


_retries = _Retries()


@contextmanager
def without_retries() -> Iterator[None]:
    """Let MLflow give up at once: whoever asks tries again, and looks first what the lost call has done."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

    with _retries.lock:
        if _retries.given is None:
            # Not by the variable of the process: whoever goes through all of them meanwhile would fail.
            _retries.given = RETRIES.get
            vars(RETRIES)["get"] = _retries
        _retries.blocks += 1
    try:
        yield
    finally:
        with _retries.lock:
            _retries.blocks -= 1
