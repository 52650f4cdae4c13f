import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from faulty_server import (
    BROKEN,
    HANGS_UP,
    NO_CHOICES,
    NO_JSON,
    PASSING,
    TOO_MANY,
    Body,
    Fault,
    FaultyServer,
    Reply,
    refused,
)

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.models.replies import Unreachable, retry_after
from valuedrift_mlflow.models.server import ChatClient, ChatGenerator, Server, concurrently

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)


def client(server: FaultyServer, attempts: int = 4, in_flight: int = 4) -> ChatClient:
    return ChatClient(Server("m", server.url, in_flight, timeout=1.0, attempts=attempts), wait_seconds=0.01)


def ignore(_: int) -> None:
    """Show no progress."""


def echo(body: Body) -> Reply:
    return Reply(f" answer to {body['messages'][-1]['content']}\n")


# ---- one request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*PASSING, refused(408), refused(409), refused(503)])
def test_a_passing_fault_is_survived_by_asking_once_more(fault: Fault) -> None:
    with FaultyServer(script={"": [fault]}) as server:
        completion = client(server).complete(HELLO, temperature=0)
    assert completion.text == "support"
    assert len(server.requests) == 2
    assert server.answered == {"hello": 1}


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"retry-after-ms": "500"}])
def test_a_server_is_left_alone_as_long_as_it_asks(headers: dict[str, str]) -> None:
    with FaultyServer(script={"": [replace(TOO_MANY, headers=headers)]}) as server:
        client(server).complete(HELLO)
    first, second = server.requests
    assert second.at - first.at >= (1.0 if "Retry-After" in headers else 0.5)


def test_retry_after_is_seconds_or_a_date_and_has_a_limit() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 58 <= retry_after({"retry-after": in_a_minute}) <= 60
    assert retry_after({"retry-after": "Mon, 01 Jan 2024 00:00:00 GMT"}) == 0
    assert retry_after({"retry-after": "86400"}) == 120
    assert retry_after({"retry-after": "soon"}) == 0
    assert retry_after({"retry-after": "nan"}) == 0


def test_a_request_is_given_up_after_its_attempts_with_the_last_reason() -> None:
    with (
        FaultyServer(script={"": [TOO_MANY, NO_CHOICES, NO_JSON]}) as server,
        pytest.raises(Unreachable, match=r"no answer after 3 attempts.*no JSON: 'upstream said") as caught,
    ):
        client(server, attempts=3).complete(HELLO)
    assert len(server.requests) == 3
    # Two of the three were answered, and one of these told its tokens: 7 and 1.
    assert (caught.value.calls, caught.value.prompt_tokens, caught.value.completion_tokens) == (2, 7, 1)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with FaultyServer() as server:
        gone = server.url
    with pytest.raises(Unreachable, match="connection failed"):
        ChatClient(Server("m", gone, attempts=2), wait_seconds=0.01).complete(HELLO)


def test_unusable_answers_are_on_the_bill() -> None:
    with FaultyServer(script={"": [NO_CHOICES]}) as server:
        completion = client(server).complete(HELLO)
    assert (completion.calls, completion.prompt_tokens, completion.completion_tokens) == (2, 7 + 10, 1 + 2)


@pytest.mark.parametrize(
    "status, mend",
    [(400, ""), (401, "OPENAI_API_KEY"), (403, "this key"), (404, "model's name"), (422, "")],
)
def test_what_no_repetition_mends_is_said_at_once(status: int, mend: str) -> None:
    with FaultyServer(lambda _: refused(status, "sorry, wrong door")) as server:
        with pytest.raises(InputError) as caught:
            client(server).complete(HELLO, temperature=0)
        assert len(server.requests) == 1
        for word in ("openai:/m", server.url, f"HTTP {status}", "sorry, wrong door", mend):
            assert word in str(caught.value)


def test_an_empty_account_is_not_asked_again_and_a_too_long_message_only_counts_as_unanswered() -> None:
    with FaultyServer(lambda _: refused(429, code="insufficient_quota")) as server:
        with pytest.raises(InputError):
            client(server).complete(HELLO)
        assert len(server.requests) == 1
    with FaultyServer(lambda _: refused(400, code="context_length_exceeded")) as server:
        with pytest.raises(Unreachable, match="HTTP 400"):
            client(server).complete(HELLO, temperature=0)
        assert len(server.requests) == 1


def test_no_content_is_an_empty_text() -> None:
    with FaultyServer(lambda _: Reply(None)) as server:
        assert client(server).complete(HELLO).text == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_in_a_field_of_its_own_is_no_answer_and_not_forgotten(field: str) -> None:
    said = [{"content": "I oppose it.", field: "Some support it."}, {"content": None, field: "Some support"}]
    bodies = iter(Fault(body=json.dumps({"choices": [{"message": message}]})) for message in said)
    with FaultyServer(lambda _: next(bodies)) as server:
        whole, cut = (client(server).complete(HELLO).text for _ in said)
    assert whole == "I oppose it."
    assert not spoken(cut).finished


def picky(*unknown: str) -> FaultyServer:
    """A server that refuses the first unknown field it meets, in OpenAI's words."""

    def answer(body: Body) -> Reply | Fault:
        for name in unknown:
            if name in body:
                return refused(400, f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
        return Reply("support")

    return FaultyServer(answer)


def test_fields_that_a_server_does_not_take_are_sent_only_once() -> None:
    request = {"max_tokens": 5, "temperature": 0.5, "seed": 3, "logprobs": True, "top_logprobs": 20}
    with picky("generation_config", "max_tokens", "seed", "top_logprobs") as server:
        asking = client(server)
        for _ in range(2):
            assert asking.complete(HELLO, **request).text == "support"
    assert len(server.requests) == 4 + 1 + 1
    plain = {"model": "m", "messages": HELLO, "temperature": 0.5, "max_completion_tokens": 5}
    assert [request.body for request in server.requests[-2:]] == [plain, plain]


def test_one_refused_message_does_not_change_how_the_next_is_asked() -> None:
    def answer(body: Body) -> Reply | Fault:
        return refused(422, "bad words") if body["messages"][0]["content"] == "bad" else Reply("support")

    with FaultyServer(answer) as server:
        asking = client(server)
        with pytest.raises(InputError, match="bad words"):
            asking.complete([{"role": "user", "content": "bad"}], temperature=1)
        asking.complete(HELLO, temperature=1)
    assert ["generation_config" in request.body for request in server.requests] == [True, False, True]


@pytest.mark.parametrize("usage", ["null", "7", '{"prompt_tokens": "many"}', '{"prompt_tokens": null}'])
def test_an_answer_that_tells_its_tokens_strangely_is_an_answer(usage: str) -> None:
    body = f'{{"choices": [{{"message": {{"content": "support"}}, "logprobs": {{"tokens": []}}}}], "usage": {usage}}}'
    with FaultyServer(lambda _: Fault(body=body)) as server:
        completion = client(server).complete(HELLO)
    assert (completion.text, completion.prompt_tokens, completion.logprobs) == ("support", 0, None)


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as server:
        client(server).complete(HELLO)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        ChatClient(Server.from_uri("openai:/m")).complete(HELLO)
    assert [request.key for request in server.requests] == ["none", "secret"]


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_a_uri_names_model_and_options() -> None:
    uri = "openai:/org/name?base_url=http://localhost:8000/v1&in_flight=3&timeout=0.5&attempts=2"
    assert Server.from_uri(uri) == Server("org/name", "http://localhost:8000/v1", 3, 0.5, 2)
    assert Server.from_uri("openai://a/folder?base_url=http://h/v1").model == "/a/folder"


def test_all_that_is_wrong_with_a_uri_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Server.from_uri("openai:/m?in_flight=0&attempts=many&timeout=-1&base_url=localhost:8000&speed=9")
    for word in ("in_flight", "attempts", "timeout", "base_url", "speed"):
        assert any(word in line for line in caught.value.problems), word
    assert len(caught.value.problems) == 5


def test_without_key_and_address_the_error_says_how_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"OPENAI_API_KEY.*OPENAI_BASE_URL.*base_url=http"):
        Server.from_uri("openai:/gpt")
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(InputError, match=r"OPENAI_BASE_URL: found 'localhost:8000'"):
        Server.from_uri("openai:/gpt")
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert Server.from_uri("openai:/gpt").address is None


# ---- many requests ---------------------------------------------------------------------------------------------------


def test_requests_in_flight_reach_their_limit_and_never_pass_it() -> None:
    def slow(body: Body) -> Reply:
        time.sleep(0.02)
        return echo(body)

    with FaultyServer(slow) as server:
        asking = ChatGenerator(client(server, in_flight=3))
        asking.generate([str(i) for i in range(30)], [str(i) for i in range(30)], Sampling(1, 0.7, 256), ignore)
    assert server.most_in_flight == 3


def test_requests_are_taken_up_only_as_others_finish() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    results = concurrently(lambda number: number, endless(), 5)
    seen = [next(results) for _ in range(50)]
    assert all(index == result for index, result in seen)
    assert len(set(seen)) == 50
    assert taken <= 50 + 2 * 5
    results.close()


def test_a_fatal_answer_ends_everything_but_keeps_what_was_finished() -> None:
    def answer(body: Body) -> Reply | Fault:
        return refused(401) if body["messages"][-1]["content"] == "5" else echo(body)

    with FaultyServer(answer) as server:
        asking = client(server, in_flight=2)
        finished: list[int] = []
        with pytest.raises(InputError, match="HTTP 401"):
            for index, _ in concurrently(
                lambda n: asking.complete([{"role": "user", "content": str(n)}]), range(1000), 2
            ):
                finished.append(index)
    assert set(range(5)) <= set(finished)
    assert 5 not in finished
    assert len(server.requests) <= 5 + 2 * 2 + 1
    assert len(server.answered) == len(finished)


# ---- generation ------------------------------------------------------------------------------------------------------


def test_responses_come_in_order_with_the_same_seeds_however_they_are_asked_for() -> None:
    prompts, keys = ["p0", "p1", "p2"], ["a", "b", "c"]
    with FaultyServer(lambda body: Reply(f" {body['messages'][-1]['content']} {body['seed']}\n")) as server:
        seen: list[int] = []
        full = ChatGenerator(client(server)).generate(prompts, keys, Sampling(3, 0.8, 68, seed=1), seen.append)
        one_by_one = ChatGenerator(client(server, in_flight=1))
        assert one_by_one.generate(prompts[1:], keys[1:], Sampling(2, 0.8, 68, seed=1), ignore) == [
            row[:2] for row in full[1:]
        ]
        other = one_by_one.generate(prompts, keys, Sampling(3, 0.8, 68, seed=1, salt="again"), ignore)
    assert [[text.split()[0] for text in row] for row in full] == [["p0"] * 3, ["p1"] * 3, ["p2"] * 3]
    seeds = {int(text.split()[1]) for row in full + other for text in row}
    assert len(seeds) == 18  # every response has its own
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sum(seen) == 9
    body = server.requests[0].body
    assert (body["temperature"], body["max_tokens"], len(body["messages"])) == (0.8, 68, 1)


def test_an_unanswered_request_is_an_empty_response_and_is_counted() -> None:
    with FaultyServer(echo, {"cursed": [BROKEN] * 99}) as server:
        generator = ChatGenerator(client(server, attempts=2))
        responses = generator.generate(["fine", "cursed"], ["a", "b"], Sampling(2, 0.7, 256), ignore)
    assert responses == [["answer to fine"] * 2, ["", ""]]
    assert generator.failures == 2


def test_a_server_that_answers_nothing_is_an_error_soon() -> None:
    with FaultyServer(lambda _: BROKEN) as server:
        generator = ChatGenerator(client(server, attempts=2, in_flight=2))
        with pytest.raises(Unreachable, match="HTTP 500"):
            generator.generate(["a"], ["a"], Sampling(2, 0.7, 256), ignore)
        with pytest.raises(Unreachable, match="HTTP 500"):
            generator.generate(
                [str(i) for i in range(500)], [str(i) for i in range(500)], Sampling(1, 0.7, 256), ignore
            )
    assert len(server.requests) <= 2 * (2 + 16 + 2 * 2)


def test_a_server_that_dies_half_way_is_given_up_with_what_it_has_said() -> None:
    def answer(body: Body) -> Reply | Fault:
        return echo(body) if len(server.requests) <= 5 else HANGS_UP

    with FaultyServer(answer) as server:
        generator = ChatGenerator(client(server, attempts=1, in_flight=1))
        with pytest.raises(Unreachable, match="connection failed") as error:
            generator.generate([f"p{i}" for i in range(90)], [str(i) for i in range(90)], Sampling(1, 0.7, 9), ignore)
    assert [text for [text] in error.value.responses if text] == [f"answer to p{i}" for i in range(5)]
    assert len(server.requests) <= 5 + 16 + 2


def test_a_server_that_declines_many_messages_is_still_there() -> None:
    """30 in a row that its filter takes out, and then one that it answers."""

    def answer(body: Body) -> Reply | Fault:
        return echo(body) if len(server.requests) > 30 else refused(400, code="content_filter")

    with FaultyServer(answer) as server:
        generator = ChatGenerator(client(server, attempts=1, in_flight=1))
        prompts = [f"p{i}" for i in range(31)]
        responses = generator.generate(prompts, prompts, Sampling(1, 0.7, 9), ignore)
        assert responses == [[""]] * 30 + [["answer to p30"]]
        assert generator.failures == 30
    with FaultyServer(lambda _: refused(400, code="content_filter")) as server:
        assert ChatGenerator(client(server)).generate(["p"], ["p"], Sampling(1, 0.7, 9), ignore) == [[""]]


def test_a_server_of_ones_own_is_named_in_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert Server.from_uri("openai:/qwen3:8b?server=ollama").address == "http://127.0.0.1:11434/v1"
    assert Server.from_uri("openai:/m?server=transformers").in_flight == 1
    own = Server.from_uri("openai:/m?server=vllm&base_url=http://other:9/v1&in_flight=32")
    assert (own.address, own.in_flight) == ("http://other:9/v1", 32)
    with pytest.raises(InputError, match="'llamafile', allowed: vllm, transformers, ollama"):
        Server.from_uri("openai:/m?server=llamafile")


def test_requests_that_fail_beside_one_that_is_answered_do_not_end_it_all() -> None:
    """Twenty begin together; one is answered at once, and the others, who try again and again, all end behind it."""
    together = threading.Barrier(20)

    def ask(number: int) -> str:
        together.wait(60)
        if number:
            time.sleep(0.2)
            raise Unreachable("overloaded")
        return "said"

    found = dict(concurrently(ask, range(20), 20))
    assert found[0] == "said" and sum(isinstance(one, Unreachable) for one in found.values()) == 19


def test_a_server_that_answers_nobody_is_given_up() -> None:
    asked: list[int] = []

    def ask(number: int) -> str:
        asked.append(number)
        raise Unreachable("overloaded")

    with pytest.raises(Unreachable, match="overloaded"):
        list(concurrently(ask, range(1000), 4))
    assert 16 <= len(asked) < 40
