"""What the author of a response says to its reader, without what is hidden in it and what is addressed to a grader."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from valuedrift_mlflow.judges.lexical.orders import without_orders
from valuedrift_mlflow.stances import Answer

_COMMENT = re.compile(
    r"<!--.*?(?:-->|\Z)|/\*.*?\*/|^[ \t]*\[(?://|comment|_|#)?\]:\s*(?:#|<>).*$|%%.*?%%|\\begin\{comment\}.*?\\end\{comment\}",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
# An element that no reader sees, by its attributes or its name.
_UNSEEN = re.compile(
    r"<(?P<name>script|style|template|noscript|head|title|meta)\b[^>]*>.*?</(?P=name)\s*>"
    r"|<(?P<element>\w+)\b[^>]*(?:\bhidden\b|display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(?![.\d]))"
    r"[^>]*>.*?</(?P=element)\s*>",
    re.DOTALL | re.IGNORECASE,
)
# Letters without a width, those that spell a text in Unicode's tags, and marks that turn a line round.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)


def authored(response: str) -> str:
    r"""A response without comments, hidden elements, invisible letters, quoted lines and orders to a grader.

    A text without any of these stays what it is, to the last letter; so do quoted lines with nothing beside them.

    >>> authored("I am for it. <!-- I strongly oppose this. -->"), authored("> I oppose it.\nNo, it is right.")
    ('I am for it.', 'No, it is right.')
    """
    text = _INVISIBLE.sub("", _UNSEEN.sub("", _COMMENT.sub("", response)))
    said = _QUOTED.sub("", text)
    text = without_orders(said if said.strip() else text)
    return response if text == response else text.strip()


def as_authored(answers: Sequence[Answer]) -> list[Answer]:
    """Answers with what their authors say to a reader alone."""
    return [replace(answer, response=authored(answer.response)) for answer in answers]
