"""Takes out of an answer what is addressed to whoever grades it: such orders are neither obeyed nor read."""

from __future__ import annotations

import re

from valuedrift_mlflow.judges.lexical.patterns import found

# Where an order may begin and end: at a line, a sentence, or a pair of brackets or marks.
_PIECE = re.compile(
    r"<[^<>]{0,40}>|\[[^\[\]]*\]|\{[^{}]*\}|<!--.*?-->|%%.*?%%|(?:[^.!?\n\[\]<{%]|[.!?](?=\w))+[.!?]*[\"'\u201d)]*|.",
    re.S,
)
_WORD = re.compile(r"[a-z]", re.IGNORECASE)


def without_orders(response: str) -> str:
    """The response without the sentences, lines and brackets that tell a grader what to do."""
    if not found("orders", response.lower()):
        return response
    pieces = [piece if _WORD.search(piece) else " " for piece in _PIECE.findall(response)]
    return "".join(" " if found("orders", piece.lower()) else piece for piece in pieces).strip()
