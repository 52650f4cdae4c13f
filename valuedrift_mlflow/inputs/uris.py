"""``name?key=value&key=value`` strings, the one syntax for suites and embedded data."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from valuedrift_mlflow.inputs.errors import InputError, problem


def split_options(uri: str) -> tuple[str, dict[str, str]]:
    """Split ``uri`` at its first ``?`` into the name and its options.

    Raises:
        InputError: an option is not of the form key=value, or stands twice.

    >>> split_options("embedded:sft?support=0.7&size=10")
    ('embedded:sft', {'support': '0.7', 'size': '10'})
    """
    name, _, query = uri.partition("?")
    try:
        # An empty value says something: anchors with ?except= are on all topics.
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InputError(problem(uri, query, "key=value pairs joined by &")) from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InputError(problem(uri, query, "every option once"))
    return name, options


def topics_of(options: Mapping[str, str]) -> tuple[str, ...] | None:
    """The option ``topics``, each once; None where it is not given."""
    return tuple(dict.fromkeys(options["topics"].split(","))) if "topics" in options else None


def whole_number(uri: str, key: str, text: str, least: int = 1) -> int:
    """An option of a suite that is a whole number.

    Raises:
        InputError: it is none, or below ``least``.
    """
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise InputError(problem(f"suite {uri} {key}", text, f"a whole number of at least {least}"))
    return int(text)
