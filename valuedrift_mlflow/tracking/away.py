"""What a failed call of the tracking store says: the store is away, it has the thing already, or it refuses it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# As MLflow names what may pass by itself; its own network errors and a gateway's pages are INTERNAL_ERROR.
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
_PASSING |= {"DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"}
_PASSING_STATUS = {408, 425, 429}  # beside all from 500
_THERE = re.compile(r"unique constraint|duplicate (key|entry)|UniqueViolation|IntegrityError", re.IGNORECASE)
_OURS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, NotImplementedError, ImportError)
_NO_FILE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_there(error: Exception) -> bool:
    """Whether the store says that it has what it was given, as it does where its first reply was lost."""
    return bool(_THERE.search(str(error)))


def is_away(error: Exception) -> bool:
    """Whether the same call may succeed later: the store or its artifacts do not answer, or are busy.

    >>> is_away(ConnectionRefusedError()), is_away(ValueError("a bad value"))
    (True, False)
    """
    from mlflow.exceptions import MlflowException

    if is_there(error):
        return False
    if isinstance(error, MlflowException):
        return str(error.error_code) in _PASSING
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):  # of artifacts that are sent past the server
        return status >= 500 or status in _PASSING_STATUS
    if isinstance(error, OSError):
        return not isinstance(error, _NO_FILE)
    # A reply that was cut off is no JSON. What is not known may be any object store's error.
    return isinstance(error, json.JSONDecodeError) or not isinstance(error, _OURS)


class _Retries:
    """How many blocks want no retries now, and what was set before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0
        self.given: str | None = None


_retries = _Retries()  # MLflow reads a variable of the process


@contextmanager
def without_retries() -> Iterator[None]:
    """Let MLflow give up at once: whoever asks tries again, and looks first what the lost call has done."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

    with _retries.lock:
        if not _retries.blocks:
            _retries.given = RETRIES.get_raw()
            RETRIES.set(0)
        _retries.blocks += 1
    try:
        yield
    finally:
        with _retries.lock:
            _retries.blocks -= 1
            if not _retries.blocks:
                RETRIES.unset() if _retries.given is None else RETRIES.set(_retries.given)
