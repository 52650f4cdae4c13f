"""Designs of ablations: the keys of their YAML files, and those that come with the project.

A design is a YAML file in ``entrypoints/designs``, or a user's own in the same form. Nothing here knows one by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.shipped import shipped_folder
from valuedrift_mlflow.pipeline.ablation_summary import Dose
from valuedrift_mlflow.recipe.read import load_recipe, read_yaml
from valuedrift_mlflow.recipe.recipe import Recipe

MOST = 2_000  # combinations; each is a training
_TEXT_LABEL = 24  # characters of a value that still names itself in a figure


class Design(BaseModel):
    """What an ablation crosses."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    about: str = Field("", description="one line on what is asked")
    recipe: str = Field("", description="the recipe that it is made for, used where no other one is asked for")
    set: dict[str, object] = Field(
        default_factory=dict, description="settings over the recipe's, by their keys as for `--set`, which comes after"
    )
    cells: list[str] = Field(
        default_factory=list,
        description="stages that are compared, by name or algorithm; every stage that no other one needs if not given",
    )
    axes: dict[str, list[object] | dict[str, object]] = Field(
        default_factory=dict,
        description="recipe key: its values, or names and values. `KEY` is a key of the compared stages, `STAGE.KEY` "
        "of one stage or algorithm, `data?OPTION` an option of their data's URI; keys of the recipe itself work too",
    )
    choices: dict[str, dict[str, dict[str, object]]] = Field(
        default_factory=dict,
        description="an axis of several keys at once: its name, the names of its choices, and the keys with the "
        "values of each",
    )
    chains: list[list[str]] = Field(
        default_factory=list,
        description="orders of stages, each from the base model; drift is measured from there",
    )
    leave_out: bool = Field(False, description="leave stages out, one at a time and in combination")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="seeds of training and sampling, one run each")

    @property
    def from_base(self) -> bool:
        """Whether cells end chains of their own, which have the base model alone in common."""
        return self.leave_out or bool(self.chains)

    def doses(self) -> list[list[Dose]]:
        """The doses of each axis: those over one key, then the choices."""
        named = [
            [Dose(axis, axis, settings, str(name)) for name, settings in choices.items()]
            for axis, choices in self.choices.items()
        ]
        return [*(_doses(key, values) for key, values in self.axes.items()), *named]

    def settings(self, dose: Dose) -> Iterator[tuple[str, object]]:
        """The keys that a dose writes, with their values."""
        yield from (
            dose.value.items()
            if isinstance(dose.value, dict) and dose.key in self.choices
            else [(dose.key, dose.value)]
        )

    def problems(self, source: str) -> list[str]:
        """What is wrong with it in itself, a line each."""
        where = f"design {source}"
        wrong = [
            problem(f"{where}: axes.{key}", values, "at least one value, each once")
            for key, values in self.axes.items()
            # By label, not by value: two values of one label could not be told apart in metrics, tables and names.
            if not values or len({dose.label for dose in _doses(key, values)}) < len(values)
        ]
        wrong += [
            problem(f"{where}: choices.{axis}", "none", "at least one") for axis, own in self.choices.items() if not own
        ]
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            wrong.append(problem(f"{where}: seeds", self.seeds, "whole numbers of at least 0, each once"))
        if "seed" in self.axes:
            wrong.append(problem(f"{where}: axes", "seed", "other keys", "list the seeds under seeds"))
        called = [_axis(key) for key in self.axes] + list(self.choices)
        wrong += [
            problem(f"{where}: axes, choices", name, "axes of different names", "make choices of one of them")
            for name in dict.fromkeys(called)
            if called.count(name) > 1
        ]
        if len(set(called)) == len(called):  # else that is what is wrong
            wrong += self._written_twice(where)
        given = [name for name in ("cells", "chains", "leave_out") if getattr(self, name)]
        if "chains" in given and len(given) > 1:
            wrong.append(problem(f"{where}: chains", " and ".join(given), "chains alone: they name what is compared"))
        chains = [tuple(chain) for chain in self.chains]
        if not all(chains) or len(set(chains)) < len(chains) or any(len(set(own)) < len(own) for own in chains):
            wrong.append(problem(f"{where}: chains", self.chains, "lists of stages, each once, no stage twice in one"))
        if "chains" in self.model_fields_set and not self.chains:
            wrong.append(problem(f"{where}: chains", "none", "at least one list of stages, or no chains"))
        cells = math.prod(max(1, len(doses)) for doses in self.doses()) * len(self.seeds)
        if cells > MOST:
            mend = "leave out values, or make several designs"
            wrong.append(problem(f"{where}", f"{cells:,} combinations of values and seeds", f"at most {MOST:,}", mend))
        return wrong

    def _written_twice(self, where: str) -> list[str]:
        """Keys that several axes or choices write, of which the last alone would count; and keys that name things."""
        by_key: dict[str, list[str]] = {key: [f"axes.{key}"] for key in self.axes}
        for axis, own in self.choices.items():
            for key in dict.fromkeys(key for settings in own.values() for key in settings):
                by_key.setdefault(key, []).append(f"choices.{axis}")
        for key, places in by_key.items():
            everywhere = key.partition(".")[2]  # `beta` is the key of all compared stages, `dpo.beta` of some
            places += [f"axes.{everywhere}"] if everywhere in self.axes and key not in self.axes else []
        mend = "the later one would undo the other"
        wrong = [
            problem(f"{where}: {key}", " and ".join(places), "one place that sets it", mend)
            for key, places in by_key.items()
            if len(places) > 1
        ]
        named = [key for key in by_key if key.count(".") < 2 and key.split(".")[-1] in ("name", "from", "algorithm")]
        return wrong + [
            problem(f"{where}: {key}", "a key that says what a stage is", "other keys", "use cells or chains")
            for key in named
        ]


def design_names() -> list[str]:
    """Names of the designs that come with the project."""
    return sorted(path.stem for path in shipped_folder("designs").glob("*.yaml"))


def load_design(source: str) -> Design:
    """A design by name or from a YAML file.

    Raises:
        InputError: an unknown name, a file that cannot be read, unknown keys, seeds that repeat.
    """
    named = source in design_names()
    if not named and (not source.endswith((".yaml", ".yml")) or not user_path(source, "design").is_file()):
        raise InputError(problem("design", source, ", ".join(design_names()) + ", or a YAML file"))
    path = shipped_folder("designs") / f"{source}.yaml" if named else user_path(source)
    tree = read_yaml(path, "design")
    if not tree:
        raise InputError(problem(f"design {source}", "nothing", f"at least one of {', '.join(Design.model_fields)}"))
    try:
        design = Design.model_validate(tree)
    except ValidationError as error:
        raise InputError(_misfits(error, f"design {source}")) from None
    if wrong := design.problems(source):
        raise InputError(wrong)
    return design


def _misfits(error: ValidationError, where: str) -> list[str]:
    """A line for each key that is unknown, and for each value of another type than its key takes."""
    wrong: dict[str, tuple[object, list[str], str]] = {}
    for entry in error.errors(include_url=False):
        # Of a union each member complains in its own name, such as list[any].
        place = ".".join(str(part) for part in entry["loc"] if "[" not in str(part))
        unknown = entry["type"] == "extra_forbidden"
        allowed = ", ".join(Design.model_fields) if unknown else entry["msg"].removeprefix("Input should be ")
        # Of a list where keys are needed the whole is wrong, and no key of it.
        field = Design.model_fields.get(str(entry["loc"][0])) if entry["loc"] else None
        meant = field.description.split(". ")[0] if field is not None and field.description else "unknown key"
        wrong.setdefault(place, (entry["input"], [], meant))[1].append(allowed)
    return [
        problem(f"{where}: {place}", found, " or ".join(dict.fromkeys(allowed)), meant)
        for place, (found, allowed, meant) in wrong.items()
    ]


def recipe_of(design: Design, recipe: str, settings: str = "", default: str = "ablate") -> tuple[Recipe, str]:
    """The recipe of a design, with its settings and over them the user's; and where it was read.

    The design's own recipe stands in for ``default``; any other one that is asked for is taken.

    Raises:
        InputError: all problems of the recipe and the settings at once.
    """
    source = design.recipe if design.recipe and recipe == default else recipe
    return load_recipe(source, settings, design.set), source


def _axis(key: str) -> str:
    return re.split(r"[.?]", key)[-1]


def _doses(key: str, values: list[object] | dict[str, object]) -> list[Dose]:
    axis = _axis(key)
    if isinstance(values, dict):
        return [Dose(key, axis, value, str(name)) for name, value in values.items()]
    return [Dose(key, axis, value, _label(value, number)) for number, value in enumerate(values, start=1)]


def _label(value: object, number: int) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    # A long value, such as a URI with options, is called by its place in the list.
    return text if len(text) <= _TEXT_LABEL else str(number)
