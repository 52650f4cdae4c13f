"""What servers that speak the OpenAI chat API send back: completions, what they cost, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, ValidationError

from valuedrift_mlflow.inputs.errors import Unanswered, one_line
from valuedrift_mlflow.inputs.reading import json_of

if TYPE_CHECKING:
    from openai import APIStatusError

LONGEST_RETRY_AFTER = 120.0  # seconds; a server that asks for more is asked again all the same


class _Token(BaseModel):
    token: str
    logprob: float


class TokenLogprobs(_Token):
    """One generated token with its log-probability, and the most probable tokens of its place."""

    top_logprobs: list[_Token] = []


@dataclass(frozen=True)
class Completion:
    """An answer, and what it took: requests that were answered (unusable answers too) and their tokens."""

    text: str
    logprobs: tuple[TokenLogprobs, ...] | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None


class Unreachable(Unanswered):
    """A request stayed without an answer. What was spent on it all the same is kept, as in `Completion`.

    Attributes:
        calls: requests that were answered in no usable way.
        prompt_tokens: their tokens.
        completion_tokens: those of their answers.
        declined: the server is there, and will not answer these very messages.
        responses: what a `ChatGenerator` had got before it gave the server up, empty where nothing came.
    """

    def __init__(self, reason: str, bill: Bill | None = None, *, declined: bool = False) -> None:
        """Keep the last reason and the costs."""
        super().__init__(reason)
        self.calls = bill.calls if bill else 0
        self.prompt_tokens = bill.prompt_tokens if bill else 0
        self.completion_tokens = bill.completion_tokens if bill else 0
        self.declined = declined
        self.responses: list[list[str]] = []


class Passing(Exception):
    """A fault after which the same request may succeed, and how many seconds the server wants it to wait."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Message(BaseModel):
    content: str | None = None
    # Where servers put a reasoning model's thought: DeepSeek's API and vLLM, OpenRouter and Ollama.
    reasoning_content: object = None
    reasoning: object = None

    def text(self) -> str:
        """What was said; of a message that ends in its thought the thought, marked as one that is not finished."""
        thought = next((one for one in (self.reasoning_content, self.reasoning) if isinstance(one, str) and one), "")
        return self.content or (f"<think>{thought}" if thought else "")


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: object = None


class _Reply(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Logprobs(BaseModel):
    content: Annotated[list[TokenLogprobs], Field(min_length=1)]


@dataclass
class Bill:
    """What one request has cost so far, over all of its attempts."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: object) -> None:
        """Add the ``usage`` of one answer, where it tells any."""
        with suppress(ValidationError):
            counts = _Usage.model_validate(usage)
            self.prompt_tokens += counts.prompt_tokens or 0
            self.completion_tokens += counts.completion_tokens or 0


def server_message(error: APIStatusError) -> str:
    """What a server says of a status other than 200, in one line."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return one_line(body or error.message)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, in [0, 120]; 0 where it does not ask.

    >>> retry_after({"retry-after": "2.5"}), retry_after({"retry-after-ms": "300"}), retry_after({})
    (2.5, 0.3, 0.0)
    """
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            # The header may hold a date instead of seconds (RFC 9110, section 10.2.3).
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # no date, or one without a time zone
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else 0.0


def read_completion(content: bytes, bill: Bill) -> Completion:
    """The completion in a body.

    Raises:
        Passing: the body is no JSON, or no chat completion.
    """
    start = content[:200].decode("utf-8", "replace")
    try:
        body = json_of(content)
    except ValueError:
        raise Passing(f"a body that is no JSON: {start!r}") from None
    if isinstance(body, dict):
        bill.add(body.get("usage"))
    try:
        choice = _Reply.model_validate(body).choices[0]
    except ValidationError:
        raise Passing(f"a body that is no chat completion: {start!r}") from None
    try:
        logprobs = tuple(_Logprobs.model_validate(choice.logprobs).content)
    except ValidationError:
        logprobs = None
    return Completion(
        choice.message.text(),
        logprobs,
        bill.calls,
        bill.prompt_tokens,
        bill.completion_tokens,
        choice.finish_reason,
    )
