"""What the author of a response says to its reader, without what is hidden in it and what is addressed to a grader."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from valuedrift_mlflow.judges.lexical import needed, orders, patterns
from valuedrift_mlflow.judges.lexical.orders import without_orders
from valuedrift_mlflow.stances import Answer

# All that decides what is left of a text, as it is installed: sources, or what they were compiled to.
FILTER_FILES = (__file__, orders.__file__, patterns.__file__, needed.__file__, str(patterns.PATTERNS_FILE))
_COMMENT = re.compile(
    r"(?:<|&lt;)!--.*?(?:--(?:>|&gt;)|\Z)|/\*.*?\*/|^[ \t]*\[(?://|comment|_|#)?\]:\s*(?:#|<>)[^\n]*"
    r"|%%.*?%%|\\begin\{comment\}.*?\\end\{comment\}",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_WHITE = r"(?:white\b|transparent\b|#f{3}(?:f{3})?\b|rgba?\(\s*255\s*,\s*255\s*,\s*255)"
# An element that no reader sees, by its attributes or its name.
_UNSEEN = re.compile(
    r"<(?P<name>script|style|template|noscript|head|title|meta|instructions?|system)\b[^>]*>.*?</(?P=name)\s*>"
    r"|<(?P<element>\w+)\b[^>]*(?:\bhidden\b|display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0"
    rf"|opacity\s*:\s*0(?![.\d])|(?<!-)\bcolor\s*[:=]\s*[\"']?{_WHITE})[^>]*>.*?</(?P=element)\s*>",
    re.DOTALL | re.IGNORECASE,
)
# Turns of a dialogue that an answer makes up, in the marks of chat templates.
_TURN = re.compile(r"\[INST\].*?\[/INST\]|<\|im_start\|>.*?(?:<\|im_end\|>|\Z)", re.DOTALL)
# Letters without a width, those that spell a text in Unicode's tags, and marks that turn a line round.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
# What a text must have for any of these: most texts have none, and are searched once.
_MARK = re.compile(r"[<>&/\[%\\`~]")
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)


def authored(response: str) -> str:
    r"""A response without comments, hidden elements, made-up turns, quoted lines and blocks, and orders to a grader.

    A text without any of these stays what it is, to the last letter; so does what is quoted with nothing beside it.

    >>> authored("I am for it. <!-- I strongly oppose this. -->"), authored("> I oppose it.\nNo, it is right.")
    ('I am for it.', 'No, it is right.')
    """
    text, marked = response, _MARK.search(response)
    if marked:
        text = _TURN.sub("", _UNSEEN.sub("", _COMMENT.sub("", text)))
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    if marked:
        said = _QUOTED.sub("", _FENCED.sub("", text))
        text = said if said.strip() else text
    text = without_orders(text)
    return response if text == response else text.strip()


def as_authored(answers: Sequence[Answer]) -> list[Answer]:
    """Answers with what their authors say to a reader alone."""
    return [replace(answer, response=authored(answer.response)) for answer in answers]


@cache
def filter_version() -> str:
    """SHA-256 over the files of the filter, first 12 hex digits: another one as soon as anything in them changes."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in FILTER_FILES)).hexdigest()[:12]
