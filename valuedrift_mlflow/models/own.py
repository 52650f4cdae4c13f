"""Models that users bring: ``module:Class`` with a method ``generate``, or any function from prompts to texts.

They can be evaluated, and not trained: nothing is known of their weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import cast

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.modules import NotImported
from valuedrift_mlflow.inputs.parts import is_object, load_object
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.models.generation import FunctionGenerator, Generator, Progress, Sampling

_WHAT = "Class"
_ALLOWED = "a class with a method generate, or something that takes a list of prompts and returns a list of texts"


def is_own(uri: str) -> bool:
    """Whether a model URI names what a user brings. Other forms that read alike are asked first."""
    return is_object(uri) and not uri.startswith(("embedded:", "openai:")) and not user_path(uri, "model").is_dir()


def check_own(uri: str, field: str) -> None:
    """Import what a URI names, and refuse a class that is none of a model; nothing is made of it.

    Where the job is only looked at, the module is found and not imported.

    Raises:
        InputError: it cannot be imported, or it is a class that needs arguments or has no way to answer.
    """
    try:
        part = load_object(uri, field, _WHAT)
    except NotImported:
        return
    if not inspect.isclass(part):
        return
    # Not hasattr: every class has `__call__`, that of its metaclass.
    if not any(name in kind.__dict__ for kind in part.__mro__ for name in ("generate", "__call__")):
        raise InputError(problem(field, uri, _ALLOWED))
    try:
        # Whether it takes no arguments is seen without making one: it may load a model.
        inspect.signature(part).bind()
    except TypeError as error:
        raise InputError(problem(field, uri, "a class that can be made without arguments", one_line(error))) from None
    except ValueError:  # a class of another language tells no signature
        return


def load_own(uri: str) -> Generator:
    """What answers prompts: the object of a class, or a function.

    Raises:
        InputError: as ``check_own``, or the class cannot be made.
    """
    check_own(uri, "model")
    part: object = load_object(uri, "model", _WHAT)
    if isinstance(part, type):
        try:
            part = part()
        except InputError:
            raise
        except Exception as error:  # it is the user's code
            mend = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(problem("model", uri, "a class that can be made without arguments", mend)) from error
    if callable(getattr(part, "generate", None)):
        return OwnGenerator(cast(Generator, part), uri)
    return OwnGenerator(FunctionGenerator(cast(Callable[[list[str]], Sequence[object]], part)), uri)


class OwnGenerator:
    """A model of a user, whose responses are counted before anything is computed from them."""

    def __init__(self, generator: Generator, uri: str) -> None:
        """Keep the model and its URI."""
        self.inner = generator
        self.uri = uri

    def generate(
        self, prompts: Sequence[str], keys: Sequence[str], sampling: Sampling, progress: Progress
    ) -> list[list[str]]:
        """The model's responses, ``sampling.samples`` for each prompt.

        Raises:
            InputError: it gave something else.
        """
        where = f"what model {self.uri} returns"
        try:
            responses: object = self.inner.generate(prompts, keys, sampling, progress)
        except ValueError as error:
            # Only `FunctionGenerator` says by it that the number is wrong; any other comes from the user's own code.
            if not isinstance(self.inner, FunctionGenerator):
                raise
            raise InputError(problem(where, one_line(error), "one text for each prompt")) from error
        allowed = f"{sampling.samples} texts for each of the {len(prompts)} prompts"
        if not isinstance(responses, Sequence) or isinstance(responses, str):
            raise InputError(problem(where, type(responses).__name__, f"a list of lists, {allowed}"))
        if len(responses) != len(prompts):
            raise InputError(problem(where, f"responses to {len(responses)} prompts", allowed))
        for texts in responses:
            whole = isinstance(texts, Sequence) and not isinstance(texts, str) and len(texts) == sampling.samples
            if not (whole and all(isinstance(text, str) for text in texts)):
                raise InputError(problem(where, one_line(repr(texts), 80), allowed))
        return [list(texts) for texts in responses]
