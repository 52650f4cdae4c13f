"""MLflow's own tracking server in this process, behind connections that break."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import pytest
from werkzeug.serving import make_server

Environ = dict[str, Any]
Respond = Callable[..., object]


class Faults:
    """MLflow's own server in this process, behind connections that break.

    Attributes:
        loses: whether the first reply to every write is lost, after the write.
        away: whether nothing is taken.
        locked: whether nobody is let in.
        answers: whether a request is answered now, or later.
        writes: what was asked for, in order.
    """

    def __init__(self, app: Callable[[Environ, Respond], Iterable[bytes]]) -> None:
        self.app = app
        self.loses = self.away = self.locked = False
        self.answers = threading.Event()
        self.answers.set()
        self.writes: list[str] = []
        self.lost: set[bytes] = set()

    def __call__(self, environ: Environ, respond: Respond) -> Iterable[bytes]:
        path, reads = str(environ["PATH_INFO"]), environ["REQUEST_METHOD"] == "GET" or "search" in str(environ)
        if self.away:
            return self._broken(environ)
        if self.locked:
            respond("401 Unauthorized", [("Content-Type", "text/html")])
            return [b"log in first"]
        self.answers.wait()
        # As many as there are: the connection stays open.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
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


@contextmanager
def tracking_server(store: Path, patch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A tracking server with the database in a folder, which this process writes to."""
    patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{store}/mlflow.db")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(store / "artifacts"))
    patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    from mlflow.server import app, handlers

    for kept in ("_tracking_store", "_artifact_repo"):  # those of the test before
        patch.setattr(handlers, kept, None)
    handlers._get_tracking_store()  # the first time it makes its own store that of the process
    faults = Faults(app.wsgi_app)
    serving = make_server("127.0.0.1", 0, faults, threaded=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    mlflow.set_tracking_uri(f"http://127.0.0.1:{serving.server_port}")
    mlflow.set_experiment("spool")  # made by the server, so that artifacts go there too
    try:
        yield faults
    finally:
        serving.shutdown()
