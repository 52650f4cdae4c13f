"""The parts of an answer that weigh more: how it opens and closes, what follows its last turn, its own voice."""

from __future__ import annotations

from typing import NamedTuple

from valuedrift_mlflow.judges.lexical.frame import Text

_TURNING = frozenset({"still", "yet", "though", "instead", "rather"})


class Sections(NamedTuple):
    """The sentences of a text, and what its last turn ("but", "on balance") introduces (empty where it has none).

    ``own`` is the last sentence in the first person (empty where there is none).
    """

    sentences: list[Text]
    turned: Text
    own: Text


def sections(text: Text) -> Sections:
    """Divide a text at full stops and question marks."""
    sentences: list[Text] = []
    start, turn = 0, None
    for position, (token, classes) in enumerate(zip(text.tokens, text.classes, strict=True)):
        if classes in (".", "?"):
            if position > start:
                sentences.append(text.part(start, position + 1))
            start = position + 1
        elif classes in ("C", "Z") or token in _TURNING:
            turn = position
    if start < len(text.tokens):
        sentences.append(text.part(start))
    own = next(
        (part for part in reversed(sentences) if "I" in "".join(part.classes)),
        Text([], []),
    )
    return Sections(sentences, Text([], []) if turn is None else text.part(turn), own)
