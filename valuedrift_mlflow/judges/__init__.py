"""Judges turn answers into verdicts: a stance with probabilities, a refusal, or unscored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from valuedrift_mlflow.errors import InputError, problem
from valuedrift_mlflow.stances import Answer, Verdict


class Judge(Protocol):
    """Reads the stance of answers. ``name`` and ``version`` are recorded with every result."""

    name: str
    version: str

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict per answer, in the same order. Never raises for a strange response: that is unscored."""
        ...


def check(uri: str) -> None:
    """Refuse a judge URI that names no judge.

    Raises:
        InputError: the judge is not known.
    """
    if uri != "lexical":
        raise InputError(problem("judge", uri, "lexical"))


def load(uri: str = "lexical") -> Judge:
    """The judge that a URI names.

    Raises:
        InputError: the judge is not known.
    """
    from valuedrift_mlflow.judges.lexical import LexicalJudge

    check(uri)
    return LexicalJudge()
