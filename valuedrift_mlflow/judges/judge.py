"""What a judge is: all that anything else needs to know of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from valuedrift_mlflow.stances import Answer, Verdict


class Judge(Protocol):
    """Reads the stance of answers. A judge of your own needs nothing more than this.

    A judge may also have a ``version``, which changes whenever the same answer could get another verdict. Name and
    version are recorded with every result. With ``portable = True`` it says that it can be pickled and reads the same
    in any process: many answers are then read on several cores.
    """

    name: str

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict per answer, in the same order. Never raises for a strange response: that is unscored."""
        ...


class CostlyJudge(Judge, Protocol):
    """A judge whose verdicts are worth keeping: a model on a server, or one of some size in memory.

    It reads proposition, prompt and response; no verdict of it depends on the polarity, which it finds out itself.
    """

    @property
    def version(self) -> str:
        """Verdicts of another version are not taken from what was kept."""
        ...

    def verdicts(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """The verdicts as they come, in any order, each with the index of its answer."""
        ...


def identity(judge: Judge) -> str:
    """How results name their judge: ``name@version``, or its name alone where it has no version."""
    version = getattr(judge, "version", "")
    return f"{judge.name}@{version}" if version else judge.name
