"""A tracking server that loses replies, is away or refuses a write: nothing is lost, and nothing stands twice."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from werkzeug.serving import make_server

from valuedrift_mlflow import tracking
from valuedrift_mlflow.tracking.spool import BYTES, WAIT, Undelivered

Environ = dict[str, object]
Respond = Callable[..., object]


class Faults:
    """MLflow's own server in this process, behind connections that break.

    Attributes:
        loses: whether the first reply to every write is lost, after the write.
        away: whether nothing is taken.
        writes: what was asked for, in order.
    """

    def __init__(self, app: Callable[[Environ, Respond], Iterable[bytes]]) -> None:
        self.app = app
        self.loses = self.away = False
        self.writes: list[str] = []
        self.lost: set[bytes] = set()

    def __call__(self, environ: Environ, respond: Respond) -> Iterable[bytes]:
        path, reads = str(environ["PATH_INFO"]), environ["REQUEST_METHOD"] == "GET" or "search" in str(environ)
        if self.away:
            return self._broken(environ)
        body = environ["wsgi.input"].read() if environ.get("CONTENT_LENGTH") else b""  # type: ignore[attr-defined]
        environ["wsgi.input"] = _Body(body)
        if reads:
            return self.app(environ, respond)
        self.writes.append(path.rpartition("2.0/")[2])
        answer = self.app(environ, respond)
        if self.loses and (asked := path.encode() + body) not in self.lost:
            self.lost.add(asked)
            return self._broken(environ)
        return answer

    @staticmethod
    def _broken(environ: Environ) -> Iterable[bytes]:
        line = environ["werkzeug.socket"]
        assert isinstance(line, socket.socket)
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        return []
