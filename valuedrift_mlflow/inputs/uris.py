"""``name?key=value&key=value`` strings, the one syntax for suites and embedded data."""

from __future__ import annotations

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
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InputError(problem(uri, query, "key=value pairs joined by &")) from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InputError(problem(uri, query, "every option once"))
    return name, options
