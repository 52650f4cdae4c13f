"""Judges that users bring: ``module:Class``, or the name that an installed package gives one.

The class is called with the options of the URI (``my_judge:Mine?strict=yes``) as keyword arguments, all of them texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.modules import NotImported
from valuedrift_mlflow.inputs.parts import Registry
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import Answer, Verdict

_BUILT_IN = {
    "lexical": "valuedrift_mlflow.judges.lexical.judge:LexicalJudge",
    "likelihood": "valuedrift_mlflow.judges.likelihood:LikelihoodJudge",
}


def load_own(name: str, options: Mapping[str, str], allowed: str) -> Judge:
    """The judge of a user, made with its options.

    Raises:
        InputError: it cannot be imported or made, or what is made is no judge; with ``allowed``, nothing has the name.
    """
    registry: Registry[Callable[..., object]] = Registry("valuedrift_mlflow.judges", "Class", _BUILT_IN, allowed)
    try:
        make = registry.get(name, "judge")
    except NotImported as part:
        return JudgeNotImported(name, part)
    try:
        made = make(**options)
    # The user's own check of its options; it is shown as it is.
    except InputError:
        raise
    except Exception as error:  # it is the user's code
        given = f"made with {', '.join(options)}" if options else "made without arguments"
        mend = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(problem("judge", name, f"a judge that can be {given}", mend)) from error
    called = getattr(made, "name", None)
    if not (callable(getattr(made, "judge", None)) and isinstance(called, str) and called):
        allowed = "an object with a name (a text) and a method judge(answers)"
        raise InputError(problem("judge", name, allowed, f"it is of type {type(made).__name__}"))
    return OwnJudge(cast(Judge, made), name)


@dataclass
class JudgeNotImported:
    """The judge of a user in a plan: only its name is known."""

    name: str
    part: NotImported

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Nothing is judged before the job starts.

        Raises:
            NotImported: always.
        """
        raise self.part


class OwnJudge:
    """A judge of a user, whose verdicts are looked at before anything is computed from them."""

    def __init__(self, judge: Judge, uri: str) -> None:
        """Keep the judge and what a recipe calls it."""
        self.inner = judge
        self.uri = uri
        self.name = judge.name

    @property
    def version(self) -> str:
        """The judge's own version, empty where it has none."""
        return str(getattr(self.inner, "version", ""))

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """The judge's verdicts, one per answer.

        Raises:
            InputError: it gave something else.
        """
        verdicts: object = self.inner.judge(answers)
        if not isinstance(verdicts, Sequence) or isinstance(verdicts, str):
            raise self._strange(verdicts if verdicts is None else type(verdicts).__name__, "a list of Verdict")
        strange = next((one for one in verdicts if not isinstance(one, Verdict)), None)
        # None is asked for apart: `next` gives it where nothing is strange, too.
        if strange is not None or None in verdicts:
            raise self._strange(strange, "a list that holds nothing but Verdict")
        if len(verdicts) != len(answers):
            raise self._strange(f"{len(verdicts)} verdicts", f"one for each of the {len(answers)} answers")
        return list(verdicts)

    def _strange(self, found: object, allowed: str) -> InputError:
        return InputError(problem(f"what judge {self.uri} returns", found, allowed))
