"""Algorithms that users bring: a class derived from ``Stage``, under the name by which a recipe asks for it."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any, Literal, get_args

from pydantic import create_model

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.stage import Stage

_WORD = re.compile(r"[a-z][a-z0-9_-]*")


def named(found: object, name: str, field: str) -> type[Stage]:
    """A user's class, whose ``algorithm`` is what a recipe calls it.

    Whatever the class itself says of its ``algorithm``, a recipe that is recorded, resumed or handed to another process
    must find the class again, so that the name in the recipe stays.

    Raises:
        InputError: it is no class derived from ``Stage``, or not a whole one.
    """
    if not (isinstance(found, type) and issubclass(found, Stage)):
        allowed = "a class derived from valuedrift_mlflow.stages.stage.Stage"
        raise InputError(problem(field, name, allowed, f"it is {getattr(found, '__name__', found)!s}"))
    # Else the recipe would end in a TypeError where the stage is made.
    if inspect.isabstract(found):
        raise InputError(problem(field, name, "a class with a method build(job), which returns its trainer"))
    if not hasattr(found, "kind"):
        mend = "give the class a line such as kind = 'sft'"
        raise InputError(problem(field, name, "a class with the kind of data it trains on", mend))
    return _under_its_name(found, name)


@cache  # stages are equal only where their classes are the same
def _under_its_name(kind: type[Stage], name: str) -> type[Stage]:
    only: Any = Literal[name]
    made = create_model(
        kind.__name__, __base__=kind, __module__=kind.__module__, __doc__=kind.__doc__, algorithm=(only, ...)
    )
    made.called = name if _WORD.fullmatch(name) else _word(kind)
    return made


def _word(kind: type[Stage]) -> str:
    """The word in the class's own ``algorithm: Literal["word"]``, else the class's name in lower case."""
    if "algorithm" in inspect.get_annotations(kind):
        annotation: object = kind.model_fields["algorithm"].annotation
        for word in get_args(annotation):
            if isinstance(word, str) and _WORD.fullmatch(word):
                return word
    return kind.__name__.lower()
