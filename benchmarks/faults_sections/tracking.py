"""A tracking server behind connections that break: MLflow's own, and in front of it one that passes requests on."""

from __future__ import annotations

import http.client
import random
import re
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ui_pages import server

from faults_sections.damage import ONE_STAGE
from faults_sections.place import Outcome, Place, Told, differences

# What becomes of a request: "" passes it on, "away" closes the line before it, "lost" behind it, "500" answers itself.
Fault = Callable[[int, str], str]
_LOCKED = 60.0
_REFUSED = b'{"error_code": "INTERNAL_ERROR", "message": "upstream is gone"}'


class _Proxy:
    """Passes requests on to a server, or does with them what ``fault`` says of the number of the write and its path."""

    def __init__(self, address: str) -> None:
        self.fault: Fault = lambda _number, _path: ""
        self.writes = 0
        self._host = urlsplit(address).netloc
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> _Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _action(self, method: str, path: str) -> str:
        if method == "GET" or "/search" in path:
            return self.fault(0, path)
        with self._lock:
            self.writes += 1
            number = self.writes
        return self.fault(number, path)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                action = proxy._action(self.command, self.path)
                if action == "away":
                    self.close_connection = True
                    return
                if action == "500":
                    self._reply(500, {"Content-Type": "application/json"}, _REFUSED)
                    return
                line = http.client.HTTPConnection(proxy._host, timeout=120)
                kept = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
                line.request(self.command, self.path, body, kept)
                answer = line.getresponse()
                content = answer.read()
                line.close()
                if action == "lost":
                    self.close_connection = True
                    return
                self._reply(answer.status, dict(answer.getheaders()), content)

            def _reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
                left_out = ("transfer-encoding", "connection", "content-length", "server", "date")
                with suppress(OSError):  # who asked may have lost patience
                    self.send_response(status)
                    for key, value in headers.items():
                        if key.lower() not in left_out:
                            self.send_header(key, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass

        return Handler


@contextmanager
def _served(place: Place) -> Iterator[_Proxy]:
    """A server on the place's store, and what stands in front of it."""
    with server(place.folder) as address, _Proxy(address) as proxy:
        yield proxy


def _often(what: str, share: float) -> Fault:
    """A share of all writes fails, drawn with a seed: failing in turn, what is made of two would never get through."""
    dice = random.Random(0)
    return lambda number, _path: what if number and dice.random() < share else ""


def _away(seconds: float, from_write: int) -> Fault:
    """Nothing is answered for a while from a write on."""
    begun: list[float] = []

    def fault(number: int, _path: str) -> str:
        if number >= from_write and not begun:
            begun.append(time.monotonic())
        return "away" if begun and time.monotonic() - begun[0] < seconds else ""

    return fault


def faults(place: Place, short: bool) -> Iterator[Outcome]:
    """Replies that are lost, errors, a server that is slow, away, away for good; a database that another one locks."""
    expected, writes = _whole(place)
    middle = writes // 2
    cases: list[tuple[str, Fault]] = [
        ("half of all replies to writes are lost behind them", _often("lost", 0.5)),
        ("a quarter of all writes is answered by 500", _often("500", 0.25)),
        ("away for 30 s in the middle of the job", _away(30, middle)),
        ("away for 30 s from the first write", _away(30, 1)),
    ]
    for fault, does in cases[:1] if short else cases:
        yield Outcome("tracking server", fault, _through(place, does, expected))
        place.forget()
    if not short:
        why = _replayed(place, middle, expected)
        yield Outcome("tracking server", "away for good from the middle; then replayed", why)
        place.forget()
        yield Outcome("tracking server", "3 s a call", _slow(place, expected))
        place.forget()
        yield _locked(place)
        place.forget()


def _run(place: Place, proxy: _Proxy, **environment: str) -> Any:
    return place.run("sft", "--recipe", place.recipe(ONE_STAGE), MLFLOW_TRACKING_URI=proxy.address, **environment)


def _whole(place: Place) -> tuple[Told, int]:
    with _served(place) as proxy:
        done = _run(place, proxy)
        if done.returncode:
            raise RuntimeError(f"sft does not run: {done.stderr[-1000:]}")
        found = place.told(), proxy.writes
    place.forget()
    return found


def _through(place: Place, fault: Fault, expected: Told) -> str:
    with _served(place) as proxy:
        proxy.fault = fault
        done = _run(place, proxy)
        if done.returncode:
            return f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
        return differences(place.told(), expected)


def _replayed(place: Place, from_write: int, expected: Told) -> str:
    with _served(place) as proxy:
        proxy.fault = _away(1e9, from_write)
        done = _run(place, proxy, VALUEDRIFT_SPOOL_WAIT="5")
        line = done.stderr.strip().splitlines()[-1]
        found = re.search(r"valuedrift replay (\S+)", line)
        if not done.returncode or not found:
            return f"exit code {done.returncode}: {line}"
        proxy.fault = lambda _number, _path: ""
        folder = shlex.split(found.group(1))[0]
        again = place.run("replay", folder, MLFLOW_TRACKING_URI=proxy.address)
        if again.returncode:
            return f"replay: exit code {again.returncode}: {again.stderr.strip()[-300:]}"
        return differences(place.told(), expected)


def _slow(place: Place, expected: Told) -> str:
    """The training's own seconds are its metric; what else a job waits for (opening, ending) is not the training."""
    seconds = {}
    for name, pause in (("fast", 0.0), ("slow", 3.0)):
        with _served(place) as proxy:
            proxy.fault = lambda _number, _path, pause=pause: time.sleep(pause) or ""  # type: ignore[misc]
            done = _run(place, proxy)
            if done.returncode:
                return f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
            if why := differences(place.told(), expected):
                return why
            seconds[name] = _training_seconds(place)
        place.forget()
    print(f"  the training took {seconds['fast']:.1f} s, and {seconds['slow']:.1f} s where each call takes 3 s")
    return "" if seconds["slow"] < 1.1 * seconds["fast"] + 1 else f"{seconds['slow']:.1f} s, not {seconds['fast']:.1f}"


def _training_seconds(place: Place) -> float:
    with sqlite3.connect(place.folder / "mlflow.db") as database:
        [[value]] = database.execute("SELECT value FROM latest_metrics WHERE key = 'train/runtime'").fetchall()
    return float(value)


def _locked(place: Place) -> Outcome:
    """Another process writes to the database and does not let go of it."""
    arguments = ["--recipe", place.recipe(ONE_STAGE)]
    if place.run("sft", *arguments).returncode:
        raise RuntimeError("sft does not run")
    expected = place.told()
    place.forget()
    hook = str(place.temporary / "locked")
    step = {"event": "a training step", "nth": 2, "when": "before", "does": hook}
    arguments = ["--recipe", place.recipe(ONE_STAGE)]
    with ThreadPoolExecutor(1) as beside:
        job = beside.submit(place.run, "sft", *arguments, aim=step)
        while not Path(hook + ".there").exists() and not job.done():
            time.sleep(0.1)
        database = sqlite3.connect(place.folder / "mlflow.db", timeout=60, isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        Path(hook).touch()
        time.sleep(_LOCKED)
        database.execute("ROLLBACK")
        database.close()
        done = job.result()
    why = f"exit code {done.returncode}" if done.returncode else differences(place.told(), expected)
    return Outcome("tracking server", f"its SQLite database is locked for {_LOCKED:.0f} s", why)
