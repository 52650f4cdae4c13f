"""Servers that speak the OpenAI chat API: where they are, a client that survives their faults, and a generator.

A request is repeated only while it has no answer: after 408, 409, 429 and 5xx, time-outs, broken connections, bodies
that were cut off, and bodies that are no chat completion. What no repetition mends is an `InputError` at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from valuedrift_mlflow.inputs.errors import InputError, collecting, one_line, problem
from valuedrift_mlflow.inputs.thoughts import before_stop
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.models.generation import Progress, Sampling, seed_of
from valuedrift_mlflow.models.replies import (
    Bill,
    Completion,
    Passing,
    Unreachable,
    read_completion,
    retry_after,
    server_message,
)
from valuedrift_mlflow.models.speech import SWITCHES

if TYPE_CHECKING:
    from openai import APIStatusError
    from tenacity import RetryCallState

PREFIX = "openai:/"
LONGEST_BACKOFF = 60.0  # seconds
_STOPS = 4  # the texts to stop at that the API takes
HOPELESS = 16  # this many requests in a row without an answer: the server is given up on
LOCAL_KEY = "none"  # servers of one's own need no key, but the client wants one
# Where a server of one's own listens when it is started without flags. `transformers serve` answers one at a time.
LOCAL_SERVERS: Mapping[str, Mapping[str, str]] = {
    "vllm": {"base_url": "http://127.0.0.1:8000/v1"},
    "transformers": {"base_url": "http://127.0.0.1:8000/v1", "in_flight": "1"},
    "ollama": {"base_url": "http://127.0.0.1:11434/v1"},
}
OF_THE_MESSAGE = ("context_length_exceeded", "content_filter")  # error codes that say nothing of other messages
# What a `transformers serve` needs to draw from the whole distribution; by itself it decodes greedily wherever the
# model's own generation settings say nothing of sampling, whatever temperature is asked for.
PLAIN_SAMPLING = json.dumps({"do_sample": True, "top_k": 0, "top_p": 1.0})

Message = Mapping[str, str]
_Kind = TypeVar("_Kind")
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


# ---- addresses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Server:
    """A model on a server, and how to treat it.

    Attributes:
        model: the name that the server knows it by.
        base_url: such as ``http://127.0.0.1:8000/v1``; None for ``OPENAI_BASE_URL`` or else OpenAI's own address.
        in_flight: requests at the same time, at most.
        timeout: seconds to wait for a sign of life from the server.
        attempts: how often one request is sent before it counts as unanswered.
    """

    model: str
    base_url: str | None = None
    in_flight: Annotated[int, Field(ge=1, le=1024)] = 8
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 6

    @classmethod
    def from_uri(cls, uri: str) -> Server:
        """The server of ``openai:/MODEL?base_url=...&in_flight=8&timeout=60&attempts=6``; MODEL may hold slashes.

        Raises:
            InputError: every unknown option and value out of range at once; no key and no address.
        """
        return cls.from_options(*split_options(uri))

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str], also_allowed: Sequence[str] = ()) -> Server:
        """The same from a URI that was split; options in ``also_allowed`` are left to the caller.

        The option ``server`` (``vllm``, ``transformers`` or ``ollama``) stands for the address of one that runs here.

        Raises:
            InputError: every unknown option and value out of range at once; no key and no address.
        """
        model = name.removeprefix(PREFIX)
        if model == name or not model.strip("/"):
            raise InputError(problem("model", name, f"{PREFIX}MODEL"))
        allowed = [field.name for field in fields(cls) if field.name != "model"]
        local = options.get("server", "")
        if local and local not in LOCAL_SERVERS:
            raise InputError(problem(f"{name} server", local, ", ".join(LOCAL_SERVERS), "or give base_url"))
        options = {**LOCAL_SERVERS.get(local, {}), **{key: options[key] for key in options if key != "server"}}
        given = "base_url" in options
        where = f"{name} base_url" if given else "OPENAI_BASE_URL"
        address = options.get("base_url", os.environ.get("OPENAI_BASE_URL", ""))
        with collecting() as problems:
            for option in options:
                if option not in allowed and option not in also_allowed:
                    known = ", ".join((*allowed, "server", *also_allowed))
                    problems.add(problem(f"{name} option", option, known, "unknown option"))
            if not _is_address(address) and (given or address):
                problems.add(problem(where, address, "an address such as http://127.0.0.1:8000/v1"))
            if not (given or address or os.environ.get("OPENAI_API_KEY")):
                found, mend = "no OPENAI_API_KEY", f"set one of them, or write {name}?base_url=http://HOST:PORT/v1"
                problems.add(problem(name, found, "a key in OPENAI_API_KEY or a server in OPENAI_BASE_URL", mend))
            return validated(cls, name, {"model": model, **{k: options[k] for k in allowed if k in options}})

    @property
    def address(self) -> str | None:
        """Where the server is; None for OpenAI's own."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None


def _is_address(text: str) -> bool:
    """Whether a client can be made for an address; whether somebody answers there is another matter."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname and parts.hostname.encode("idna")) and parts.port != 0
    except ValueError:  # a port or a name that cannot be
        return False
    return named and bool(re.fullmatch(r"https?://[^\s\\]+", text))


def validated(kind: type[_Kind], name: str, options: Mapping[str, object]) -> _Kind:
    """A pydantic dataclass made of the options of the URI ``name``.

    Raises:
        InputError: one line for every value that is out of range.
    """
    try:
        return kind(**options)
    except ValidationError as error:
        raise InputError(
            [
                problem(f"{name} {entry['loc'][0]}", entry["input"], entry["msg"].removeprefix("Input should be "))
                for entry in error.errors(include_url=False)
            ]
        ) from None


# ---- one request -----------------------------------------------------------------------------------------------------


class ChatClient:
    """Sends chat requests to one server until they are answered; may be used from several threads at once.

    Servers differ in what they take. What this one was found not to take is remembered: ``max_tokens`` is then sent as
    ``max_completion_tokens``, log-probabilities and seeds are no longer asked for.
    """

    def __init__(self, server: Server, wait_seconds: float = 1.0) -> None:
        """Keep the server; nothing is sent. ``wait_seconds`` is the longest wait before the first repetition."""
        from openai import OpenAI
        from tenacity import wait_random_exponential

        self.server = server
        try:
            self._client = OpenAI(
                api_key=os.environ.get("OPENAI_API_KEY") or LOCAL_KEY,
                base_url=server.address,
                timeout=server.timeout,
                max_retries=0,  # tenacity repeats: the client's own repetitions would multiply with it, unseen
            )
        except Exception as error:  # of the library that it asks by: a name that no host can have
            where, allowed = f"{PREFIX}{server.model} base_url", "an address such as http://127.0.0.1:8000/v1"
            raise InputError(problem(where, server.address, allowed, one_line(error))) from None
        # At random within a growing limit: many requests that failed together must not all come again together.
        self._backoff = wait_random_exponential(multiplier=wait_seconds, max=LONGEST_BACKOFF)
        self._not_taken: frozenset[str] = frozenset()  # replaced, never changed: other threads read it

    def complete(self, messages: Sequence[Message], **request: object) -> Completion:
        """The answer to ``messages``; ``request`` holds further fields of the API (temperature, max_tokens, ...).

        Repeated with exponential backoff and full jitter, no sooner than the server asks for (``Retry-After``).

        Raises:
            Unreachable: no answer after all attempts, or the server will not answer these very messages.
            InputError: the server refuses for a reason that lies in the key, the model's name or the request.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        bill = Bill()
        retrying = Retrying(
            stop=stop_after_attempt(self.server.attempts),
            wait=self._pause,
            retry=retry_if_exception_type(Passing),
            reraise=True,
        )
        try:
            return retrying(self._attempt, messages, request, bill)
        except Passing as fault:
            reason = f"{self.server.model}: no answer after {self.server.attempts} attempts, the last one: {fault}"
            raise Unreachable(reason, bill) from fault

    def _pause(self, state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), fault.retry_after if isinstance(fault, Passing) else 0.0)

    def _attempt(self, messages: Sequence[Message], request: Mapping[str, object], bill: Bill) -> Completion:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        # Raw, so that a body which was cut off or is no completion is seen as what it is.
        send: Any = self._client.chat.completions.with_raw_response.create  # its overloads want literal types
        without: frozenset[str] = frozenset()
        while True:
            sent = self._spoken(request, without)
            try:
                answer = send(model=self.server.model, messages=list(messages), **sent)
            except APIStatusError as error:
                field = _field_not_taken(error, sent)
                if field is None:
                    raise self._fault(error, bill) from error
                without |= {field}
            # Before the next one, of which it is a kind.
            except APITimeoutError as error:
                raise Passing(f"nothing within {self.server.timeout:g} s") from error
            except APIConnectionError as error:
                raise Passing(f"connection failed ({error.__cause__ or error})") from error
            else:
                bill.calls += 1
                self._not_taken |= without  # now that it helped
                return read_completion(answer.http_response.content, bill)

    def _spoken(self, request: Mapping[str, object], without: frozenset[str]) -> dict[str, object]:
        """The request in the words that this server takes, as far as is known."""
        without |= self._not_taken
        sent = dict(request)
        if "max_tokens" in without and "max_tokens" in sent:
            sent["max_completion_tokens"] = sent.pop("max_tokens")
        for field in without:
            # `top_logprobs` goes with `logprobs`: without these it would be refused in turn.
            for name in (field, f"top_{field}"):
                sent.pop(name, None)
        # OpenAI's own server is known to refuse them, others ignore them or are asked again without.
        temperature, extra = sent.get("temperature"), dict[str, object]()
        samples = isinstance(temperature, float | int) and temperature > 0
        if samples and "generation_config" not in without:
            extra["generation_config"] = PLAIN_SAMPLING
        template = sent.pop("chat_template_kwargs", None)
        if template and "chat_template_kwargs" not in without:
            extra["chat_template_kwargs"] = template
        if self.server.address and extra:
            sent["extra_body"] = extra
        return sent

    def _fault(self, error: APIStatusError, bill: Bill) -> Exception:
        """What a status other than 200 means."""
        status = error.status_code
        said = f"HTTP {status}: {server_message(error)}"
        # Other messages may well be answered: it does not count as a silence.
        if error.code in OF_THE_MESSAGE:
            return Unreachable(f"{self.server.model}: {said}", bill, declined=True)
        # An account without money gets a 429 as well: waiting does not mend that.
        if (status in (408, 409, 429) or status >= 500) and error.code != "insufficient_quota":
            return Passing(said, retry_after(error.response.headers))
        mend = {
            401: "check OPENAI_API_KEY",
            403: "check what this key may use",
            404: "check the model's name and the address, which usually ends in /v1",
        }.get(status, "")
        where = f"{PREFIX}{self.server.model} at {self._client.base_url}"
        return InputError(problem(where, said, "a request that this server accepts", mend))


def _field_not_taken(error: APIStatusError, sent: Mapping[str, object]) -> str | None:
    """The field without which, or under another name, the same request may be taken; None where there is none."""
    if error.status_code not in (400, 403, 422) or error.code in OF_THE_MESSAGE:
        return None
    optional = ("generation_config", "chat_template_kwargs", "logprobs", "max_tokens", "seed")
    extra = sent.get("extra_body")
    own = {*sent, *(extra if isinstance(extra, dict) else ())}
    asked = [field for field in optional if field in own and not _is_wanted(field, extra)]
    named = [field for field in asked if re.search(rf"\b(top_)?{field}\b", error.response.text)]
    if error.status_code == 403:  # how OpenAI refuses log-probabilities; otherwise it is about the key
        named = [field for field in named if field == "logprobs"]
    else:  # strangers to most servers: in doubt even where they are not named
        named += [field for field in optional[:2] if field in asked]
    return named[0] if named else None


def _is_wanted(field: str, extra: object) -> bool:
    """Whether a field holds what a user has asked for by name: without it other answers would be measured."""
    told = extra.get("chat_template_kwargs") if isinstance(extra, dict) else None
    return field == "chat_template_kwargs" and isinstance(told, dict) and not told.keys() <= SWITCHES.keys()


# ---- many requests ---------------------------------------------------------------------------------------------------


def concurrently(
    ask: Callable[[_Request], _Result], requests: Iterable[_Request], in_flight: int
) -> Iterator[tuple[int, _Result | Unreachable]]:
    """The results of ``ask`` as they come, each with the index of its request, at most ``in_flight`` at once.

    Requests are taken up as others finish, so that memory stays small however many there are.

    Raises:
        InputError: as soon as one request raises it no other is begun; those under way are yielded first.
        Unreachable: 16 requests, all begun after the last answer, have ended without one; those under way are yielded
            first.
    """
    fatal: Exception | None = None
    silent, answered = 0, -math.inf
    begun: dict[int, float] = {}

    def asked(index: int, request: _Request) -> _Result:
        begun[index] = time.monotonic()
        return ask(request)

    with ThreadPoolExecutor(in_flight) as pool:
        waiting = enumerate(requests)
        pending: dict[Future[_Result], int] = {}
        try:
            while True:
                if fatal is None:
                    # Twice as many as run at once: none idles while the caller looks at a result.
                    for index, request in islice(waiting, 2 * in_flight - len(pending)):
                        pending[pool.submit(asked, index, request)] = index
                if not pending:
                    break
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    index = pending.pop(future)
                    since = begun.pop(index)
                    try:
                        result: _Result | Unreachable = future.result()
                        silent, answered = 0, time.monotonic()
                    except Unreachable as error:
                        result = error
                        if error.declined:
                            silent, answered = 0, time.monotonic()
                        # Who tries in vain ends later than who is answered: one begun before that says nothing.
                        elif since > answered:
                            silent += 1
                        if silent >= HOPELESS:
                            fatal = fatal or error
                    except InputError as error:
                        fatal = fatal or error
                        continue
                    yield index, result
                if fatal is not None:
                    pending = {future: index for future, index in pending.items() if not future.cancel()}
        finally:
            # Also where the caller stops reading: what has not begun is not sent, nor paid for.
            for future in pending:
                future.cancel()
    if fatal is not None:
        raise fatal


class ChatGenerator:
    """Generates with a model on a server: one request for each response. ``failures`` counts those left unanswered."""

    def __init__(self, client: ChatClient) -> None:
        """Keep the client."""
        self.client = client
        self.failures = 0
        self._counting = threading.Lock()

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """``sampling.samples`` responses for each prompt; a request that stayed unanswered gives an empty one.

        The seed that the server is asked to use depends on nothing but sampling, key and sample. What servers make of
        it differs; `transformers serve` honours it with one request in flight only.

        Raises:
            Unreachable: not one request was answered, or 16 in a row were not; it holds the responses that came. A
                server that declines a message is there all the same.
            InputError: the server refuses for a reason that lies in the key, the model's name or the request.
        """
        rows = [(index, sample) for index in range(len(prompts)) for sample in range(sampling.samples)]
        responses = [[""] * sampling.samples for _ in prompts]

        def ask(row: tuple[int, int]) -> str:
            index, sample = row
            completion = self.client.complete(
                [{"role": "user", "content": prompts[index]}],
                temperature=sampling.temperature,
                seed=seed_of(sampling.seed, sampling.salt, keys[index], sample),
                **_spoken_as(sampling),
            )
            return before_stop(completion.text, sampling.speech.stop).strip()

        silences: list[Unreachable] = []
        try:
            for number, result in concurrently(ask, rows, self.client.server.in_flight):
                if isinstance(result, Unreachable):
                    silences.append(result)
                else:
                    index, sample = rows[number]
                    responses[index][sample] = result
                progress(1)
        except Unreachable as error:
            error.responses = responses
            raise
        with self._counting:
            self.failures += len(silences)
        if silences and len(silences) == len(rows) and not silences[-1].declined:
            raise silences[-1]
        return responses


def _spoken_as(sampling: Sampling) -> dict[str, object]:
    """The fields of a request by which a server's model speaks as one in memory does.

    What its chat template has a switch for is not known here, so all are set. A server that counts no thought of its
    own has one length for both.
    """
    speech = sampling.speech
    switches = {name: values[speech.thinking] for name, values in SWITCHES.items() if isinstance(values[0], bool)}
    fields: dict[str, object] = {
        "max_tokens": sampling.longest if speech.thinking else sampling.max_new_tokens,
        "chat_template_kwargs": {**switches, **speech.template},
    }
    return fields | ({"stop": list(speech.stop[:_STOPS])} if speech.stop else {})
