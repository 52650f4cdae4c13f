"""How a model is asked for a judge: it answers in its own words, which the judge reads, or as the judge has it choose.

Whatever differs between the two is said here and by the judges that have a way of asking of their own; who measures
with a judge need not know which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.models.generation import Generator, Progress, Sampling
from valuedrift_mlflow.stances import Verdict
from valuedrift_mlflow.suite import Item


@dataclass(frozen=True, slots=True)
class Reply:
    """What was had of a model for one prompt: a text, and its verdict where the way of asking has settled it."""

    text: str
    verdict: Verdict | None = None


@runtime_checkable
class Asker(Judge, Protocol):
    """A judge with a way of asking of its own, which settles the stances: there are no responses for it to read."""

    def ask_model(
        self, generator: Generator, items: Sequence[Item], sampling: Sampling, progress: Progress
    ) -> list[list[Reply]]:
        """The replies of a model to each item, in order, every one with its verdict.

        Raises:
            InputError: the model cannot be asked in this way.
        """
        ...


def ask(
    judge: Judge, generator: Generator, items: Sequence[Item], sampling: Sampling, progress: Progress
) -> list[list[Reply]]:
    """The replies of a model to each item, in order: as the judge asks, or else ``sampling.samples`` responses.

    Raises:
        InputError: the model cannot be asked in the judge's way.
    """
    if not items:  # there may be more processes than prompts
        return []
    if isinstance(judge, Asker):
        return judge.ask_model(generator, items, sampling, progress)
    prompts, keys = [item.prompt for item in items], [item.item_id for item in items]
    return [list(map(Reply, texts)) for texts in generator.generate(prompts, keys, sampling, progress)]


def reads_responses(judge: Judge) -> bool:
    """Whether a judge has its verdicts of responses, and not of its own way of asking."""
    # A protocol is known by the names of its methods: a user's judge with an `ask_model` is an asker as well.
    return not isinstance(judge, Asker)


def reader(judge: Judge, mend: str = "") -> Judge:
    """The judge, for those who have responses and no model to ask.

    Raises:
        InputError: it reads no responses.
    """
    if not reads_responses(judge):
        raise refused(judge, mend)
    return judge


def refused(judge: Judge, mend: str = "") -> InputError:
    """The error where a judge would have to read responses and does not; ``mend`` says what it needs instead."""
    return InputError(problem("judge", judge.name, "a judge that reads responses", mend))
