"""The text in what a model or an app gave as its answer: plain, or in one of the shapes that chat APIs use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

_TEXTS = ("content", "text", "output_text", "refusal", "response", "answer", "output", "outputs", "generated_text")
_MORE = ("message", "delta", "parts", "candidates", "prediction", "predictions", "result", "completion")
_NESTED = ("choices", "messages", *_TEXTS, *_MORE)  # where an answer may lie, the likeliest place first
# Kinds of parts and items that are no part of an answer.
_THOUGHTS = ("reasoning", "thinking", "redacted_thinking")
_CALLS = ("function_call", "function_call_output", "tool_call", "tool_use", "tool_result", "mcp_call")
_SEARCHES = ("web_search_call", "file_search_call", "code_interpreter_call")
_SILENT = frozenset((*_THOUGHTS, *_CALLS, *_SEARCHES))
_DEPTH = 12  # of shapes within shapes; a deeper one is no answer


class NoText(str):
    """The empty answer of something that gave no text; it says what was given instead."""

    reason: str

    def __new__(cls, reason: str) -> NoText:
        """An empty text with the reason why it is one."""
        own = super().__new__(cls, "")
        own.reason = reason
        return own


def text_in(output: object) -> str:
    """The text of an answer, whatever shape it has.

    Known are texts; chat completions (``choices``), Gemini's ``candidates``, the ``output`` items of the Responses
    API and of MLflow's ``ResponsesAgent``; messages and lists of them (the last one that no user said); contents in
    parts; the same as objects (pydantic models, dataclasses); an object with one text under any name. Thoughts and
    calls of tools are no part of an answer; a refusal is its text.

    Returns:
        The text; `NoText` for None, numbers and objects without one, which no judge should read as text.

    >>> text_in({"choices": [{"message": {"role": "assistant", "content": "I am against this."}}]})
    'I am against this.'
    >>> text_in([{"role": "user", "content": "Should we?"}, {"role": "assistant", "content": [{"text": "Yes."}]}])
    'Yes.'
    >>> text_in(0), text_in(0).reason
    ('', 'a number (0) and no text')
    """
    return _text(output, _DEPTH)


def asked_in(request: object) -> str:
    """The text of what was asked: a text, the last message of a user, or what `text_in` finds."""
    if isinstance(request, Mapping):
        for key in ("messages", "input"):
            if isinstance(request.get(key), list | tuple):
                return asked_in(request[key])
    if _is_messages(request):
        asked = [message for message in cast(Sequence[object], request) if _role(message) == "user"]
        return text_in(asked[-1]) if asked else ""
    return text_in(request)


def _text(output: object, depth: int) -> str:
    output = _plain(output)
    if isinstance(output, str):
        return output
    if output is None or type(output).__name__ == "NAType" or output != output:  # as tables write what is missing
        return NoText("nothing (None) and no text")
    if isinstance(output, int | float):
        return NoText(f"a number ({output}) and no text")
    if not depth:
        return NoText("an object that is nested too deeply")
    if isinstance(output, Mapping):
        return _of_object(output, depth - 1)
    if isinstance(output, Iterable) and not isinstance(output, bytes):
        return _of_list(list(output), depth - 1)
    return NoText(f"a value of type {type(output).__name__} and no text")


def _plain(output: object) -> object:
    """An answer without the classes of libraries: arrays as lists, pydantic models and dataclasses as objects."""
    for name in ("model_dump", "to_dict", "tolist"):
        method = getattr(output, name, None)
        if callable(method) and not isinstance(output, type | Mapping):
            return cast(Callable[[], object], method)()
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return dataclasses.asdict(output)
    return output


def _of_object(output: Mapping[object, object], depth: int) -> str:
    if str(output.get("type")) in _SILENT:
        return NoText(f"{output['type']} and no text")
    if output.get("choices"):  # of several completions the first; the others are further samples
        return _text(next(iter(cast(Iterable[object], output["choices"]))), depth)
    empty: list[str] = []
    for key in _NESTED:
        if output.get(key) is not None:
            found = _text(output[key], depth)
            if found.strip():
                return found
            empty.append(found)
    if output.get("tool_calls") or output.get("function_call"):
        return NoText("a call of a tool and no text")
    if empty:
        return empty[0]
    if output.get("error"):
        return NoText(f"an error: {output['error']}")
    texts = [value for value in output.values() if isinstance(value, str)]
    if len(output) == 1 and texts:
        return texts[0]
    return NoText(f"an object of {', '.join(map(str, output)) or 'nothing'} and no text")


def _of_list(output: Sequence[object], depth: int) -> str:
    if _is_messages(output):  # what the app said last; a user's message is no answer
        said = [message for message in output if _role(message) not in ("user", "system", "developer", "tool")]
        texts = [_text(message, depth) for message in said]
        spoken = [text for text in texts if not isinstance(text, NoText)]
        return spoken[-1] if spoken else texts[-1] if texts else NoText("messages of others alone and no answer")
    texts = [_text(part, depth) for part in output]
    spoken = [text for text in texts if not isinstance(text, NoText)]
    if not spoken:
        return texts[0] if texts else NoText("an empty list and no text")
    return "".join(spoken)


def _is_messages(value: object) -> bool:
    """Whether a value is a list of messages, or of the output items of the Responses API, and not of parts of one."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return any(_role(message) for message in value)


def _role(message: object) -> str:
    message = _plain(message)
    return str(message.get("role") or "") if isinstance(message, Mapping) else ""
