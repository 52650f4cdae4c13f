"""Post-training stages: one file for each algorithm, with its settings, its formula and what builds its trainer."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.parts import Registry
from valuedrift_mlflow.stages import own
from valuedrift_mlflow.stages.stage import Stage

# Made by `cli.generate` from the files of this folder, in the order in which they came; the commands read it too, as
# they must show their help without importing a stage.
_FILE = Path(__file__).with_name("algorithms.json")


def _class(place: str) -> type[Stage]:
    module, _, name = place.partition(":")
    kind: type[Stage] = getattr(import_module(module), name)
    return kind


ALGORITHMS: dict[str, type[Stage]] = {
    name: _class(told["class"]) for name, told in json.loads(_FILE.read_text(encoding="utf-8")).items()
}
_CLASSES: Registry[type[Stage]] = Registry(
    "valuedrift_mlflow.algorithms",
    "Stage",
    {name: f"{kind.__module__}:{kind.__name__}" for name, kind in ALGORITHMS.items()},
)


def stage_class(algorithm: object, field: str = "algorithm") -> type[Stage]:
    """The class of an algorithm, as a recipe's stage names it.

    Besides those of this package it is ``module:Stage``, or the name that an installed package gives a class.

    Raises:
        InputError: no such algorithm, or what a user brings cannot be imported or is no stage.
    """
    if not isinstance(algorithm, str):
        raise InputError(problem(field, algorithm, ", ".join((*ALGORITHMS, "module:Stage"))))
    given = _CLASSES.get(algorithm, field)
    # Ours are what they are called in the recipe already; a user's class gets the name by which the recipe asks for it.
    return ALGORITHMS[algorithm] if algorithm in ALGORITHMS else own.named(given, algorithm, field)
