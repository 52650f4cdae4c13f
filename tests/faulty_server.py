"""A real HTTP server on loopback that speaks the OpenAI chat API and fails in every way it is told to."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; None as status closes the connection without a word."""

    status: int | None = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    missing_bytes: int = 0


def refused(status: int, message: str = "no", **more: Any) -> Fault:
    """An error as OpenAI words it."""
    return Fault(status, json.dumps({"error": {"message": message, **more}}))


TOO_MANY = Fault(429, '{"error": {"message": "slow down"}}')
BROKEN = Fault(500, "<html>Internal Server Error</html>")
SILENT = Fault(seconds=1.5)
HANGS_UP = Fault(status=None)
CUT_OFF = Fault(body='{"choices": [{"message": {"content": "sup', missing_bytes=100)
NO_JSON = Fault(body="upstream said: support")
NO_CHOICES = Fault(body='{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}')
NO_OBJECT = Fault(body='["support"]')
ERROR_IN_200 = Fault(body='{"error": {"message": "provider is overloaded", "code": 502}}')
PASSING = (TOO_MANY, BROKEN, SILENT, HANGS_UP, CUT_OFF, NO_JSON, NO_CHOICES, NO_OBJECT, ERROR_IN_200)


@dataclass(frozen=True)
class Reply:
    """A good answer: its text, and for log-probabilities the probabilities of the tokens at each place."""

    text: str | None
    tokens: tuple[tuple[str, Mapping[str, float]], ...] = ()

    def body(self) -> str:
        """The completion as JSON: 10 tokens of prompt, 2 of completion."""
        places = [
            {
                "token": token,
                "logprob": math.log(tops.get(token, 0.5)),
                "top_logprobs": [{"token": other, "logprob": math.log(p)} for other, p in tops.items()],
            }
            for token, tops in self.tokens
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": "stop",
            "logprobs": {"content": places} if places else None,
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


@dataclass(frozen=True)
class Request:
    """What arrived, and when."""

    at: float
    body: Body
    key: str

    @property
    def content(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


class FaultyServer:
    """``with FaultyServer(answer) as server``: ``answer`` makes a reply or a fault of each request that reaches it.

    ``script`` lists, for a word in the last message ("" is in every message), the faults of the first such requests.
    """

    def __init__(
        self,
        answer: Callable[[Body], Reply | Fault] = lambda _: Reply("support"),
        script: Mapping[str, Iterable[Fault]] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.answered: Counter[str] = Counter()
        self.most_in_flight = 0
        self._in_flight = 0
        self._answer = answer
        self._script = {word: list(faults) for word, faults in (script or {}).items()}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _next(self, request: Request) -> Fault | None:
        for word, faults in self._script.items():
            if word in request.content and faults:
                return faults.pop(0)
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body leave in one packet: the client's system would delay its thanks for the first by 40 ms.
            wbufsize = -1

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = Request(time.monotonic(), body, self.headers["Authorization"].removeprefix("Bearer "))
                with server._lock:
                    server.requests.append(request)
                    server._in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server._in_flight)
                    outcome: Fault | Reply | None = server._next(request)
                try:
                    outcome = outcome or server._answer(body)
                    if isinstance(outcome, Reply):
                        server.answered[request.content] += 1
                        outcome = Fault(body=outcome.body())
                    time.sleep(outcome.seconds)
                finally:
                    with server._lock:
                        server._in_flight -= 1
                with suppress(OSError):  # the client may have lost patience
                    self._send(outcome)

            def _send(self, fault: Fault) -> None:
                content = fault.body.encode()
                self.close_connection = fault.status is None or fault.missing_bytes > 0
                if fault.status is None:
                    return
                self.send_response(fault.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content) + fault.missing_bytes))
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

        return Handler
