"""Signs of stance beyond the clauses: how an answer opens and closes, the proposition's own verb, and plain words."""

from __future__ import annotations

import re
from functools import lru_cache

from valuedrift_mlflow.judges.lexical.frame import Text
from valuedrift_mlflow.judges.lexical.patterns import rules, sign
from valuedrift_mlflow.judges.lexical.tokens import class_of, normalise, stem, tokenise

_NEGATING = re.compile(r"\b(?:not|no|never|without|against|than|instead of|oppos\w+|stop|drop|cannot|nor|hardly)\b")


def opening(sentence: str) -> tuple[int, ...]:
    """Signs of a first sentence towards the prompt: a yes or no, a short clause ("They should not."), a side taken."""
    return sign("opens", sentence), sign("clause", sentence), taken(sentence)


def taken(sentence: str) -> int:
    """Whether a sentence agrees (1) or disagrees (-1) with the person who asks."""
    return sum(rule.sign for rule in rules("sides") if rule.found(sentence))


def closing(sentence: str) -> int:
    """Whether a sentence recommends (1) or advises against (-1)."""
    return sum(rule.sign for rule in rules("closes") if rule.found(sentence))


@lru_cache(maxsize=4_096)
def predicate(proposition: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Stems of the verb a proposition demands, and for a comparison those of its better and its worse side."""
    tokens = tokenise(normalise(proposition))
    codes = [class_of(token) for token in tokens]
    plain = [token.partition("\x01")[2] or token for token in tokens]
    modal = next((i for i, code in enumerate(codes) if "S" in code), None)
    verbs: list[str] = []
    if modal is not None:
        verbs = [
            stem(w)
            for w, c in zip(plain[modal + 1 :], codes[modal + 1 :], strict=True)
            if c[0] not in "VotquN&," and len(w) > 2
        ][:1]
    comparing = ("than", "over", "outweighs", "instead_of", "rather_than")
    than = next((i for i, w in enumerate(plain) if w in comparing), None)
    better: set[str] = set()
    worse: set[str] = set()
    if than is not None:
        content = [stem(w) if c[0] in "wPQ+-zaA^v" and len(w) > 3 else "" for w, c in zip(plain, codes, strict=True)]
        better, worse = set(content[: max(than - 1, 0)]), set(content[than + 1 :])
        better, worse = better - worse - {""}, worse - better - {""}
    return frozenset(verbs), frozenset(better), frozenset(worse)


def echoes(proposition: str, sentence: Text) -> tuple[int, int]:
    """Sign of the proposition's own verb in a sentence ("I would not scrap it"), and of the side of a comparison."""
    verbs, better, worse = predicate(proposition)
    plain = list(map(_written, sentence.tokens))
    stems = [stem(word) for word in plain]
    side = 0
    for i, found in enumerate(stems):
        if found in verbs:
            side = -1 if len(_NEGATING.findall(" ".join(plain[max(i - 5, 0) : i]))) % 2 else 1
    return side, sum(s in better for s in stems) - sum(s in worse for s in stems) if better else 0


def spoken(part: Text) -> str:
    """The words of a part as they were said."""
    return " ".join(map(_written, part.tokens))


@lru_cache(maxsize=50_000)
def _written(token: str) -> str:
    return token.rpartition("\x01")[2].replace("_", " ").lstrip("\x00")
