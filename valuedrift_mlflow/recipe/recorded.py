"""The recipe of a run from the parameters that it has recorded."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import yaml_of
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.recipe.recipe import Recipe

# Keys below these are of any type, so that only the text can tell of which.
_FREE = ("trainer", "options", "template_kwargs", "config")
_LONGEST = 6000  # characters that MLflow keeps of a value


def recorded_recipe(parameters: Mapping[str, str], only: str) -> Recipe:
    """The recipe with the one stage of this name, which starts from the recipe's base.

    Args:
        parameters: flat, as ``Recipe.parameters`` gives them, possibly among others.
        only: the name of the stage.

    Raises:
        InputError: the stage is not among them, or they are no recipe of this version.
    """
    tree: dict[str, object] = {}
    stage: dict[str, object] = {"name": only}
    for key, text in parameters.items():
        head, _, rest = key.partition(".")
        if head == only and rest:
            _write(stage, rest.split("."), text)
        elif head in Recipe.model_fields and head != "stages":
            _write(tree, key.split("."), text)
    stage.pop("from", None)
    if "algorithm" not in stage:
        raise InputError(problem("run", f"no parameters {only}.*", "a run with the settings of its stage"))
    return validate({**tree, "stages": [stage]})


def _write(tree: dict[str, object], path: list[str], text: str) -> None:
    *parents, last = path
    for key in parents:
        inner = tree.setdefault(key, {})
        assert isinstance(inner, dict)  # a key that holds keys has no value of its own
        tree = inner
    tree[last] = _value(text, free=any(key in _FREE for key in parents))


def _value(text: str, *, free: bool) -> object:
    """What was written as text; numbers and truth values are left to the recipe's own types."""
    if text.startswith("[") and len(text) < _LONGEST:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text
    try:
        return yaml_of(text) if free and text else text
    except ValueError:
        return text
