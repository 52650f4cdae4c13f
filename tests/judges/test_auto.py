"""What the judge ``auto`` stands for, in the order in which a team would expect it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from valuedrift_mlflow import judges
from valuedrift_mlflow.judges import auto


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (auto.VARIABLE, "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    auto._served.cache_clear()


def serving(*names: str) -> Iterator[str]:
    """A server that lists these models, as every server that speaks the OpenAI API does."""

    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            entries = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in names]
            body = json.dumps({"object": "list", "data": entries}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from serving(*request.param)


def test_any_other_judge_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(auto.VARIABLE, "openai:/other")
    assert auto.resolved("lexical") == ("lexical", "")
    assert judges.load("lexical").name == "lexical"


def test_without_anything_configured_it_is_the_offline_judge() -> None:
    uri, reason = auto.resolved("auto")
    assert uri == "lexical"
    assert auto.VARIABLE in reason and "OPENAI_BASE_URL" in reason
    assert judges.load().name == "lexical"


def test_a_team_names_its_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(auto.VARIABLE, "openai:/judge-70b?base_url=http://127.0.0.1:9/v1")
    assert judges.load("auto").name == "openai:/judge-70b"
    assert auto.resolved("auto", embedded=True)[0] == "lexical"  # it was made for the embedded world


@pytest.mark.parametrize("address", [["judge"]], indirect=True)
def test_the_one_model_of_a_server_judges(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert auto.resolved("auto")[0] == "openai:/judge"
    assert judges.load("auto").name == "openai:/judge"
    uri, reason = auto.resolved("auto", evaluated="openai:/judge?timeout=3")
    assert uri == "lexical"  # no model is made its own judge
    assert "no other model" in reason


@pytest.mark.parametrize("address", [["asked", "judge"]], indirect=True)
def test_of_two_models_that_which_is_not_evaluated(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert auto.resolved("auto", evaluated="openai:/asked")[0] == "openai:/judge"
    uri, reason = auto.resolved("auto")
    assert uri == "lexical"
    assert "asked, judge" in reason and "openai:/MODEL" in reason


def test_a_server_that_is_down_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    uri, reason = auto.resolved("auto")
    assert uri == "lexical"
    assert "http://127.0.0.1:9/v1 does not list its models" in reason
