"""A recipe from a name, a file or a mapping: YAML, ``--set``, and one line for everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import (
    BaseModel,
    ValidationError,
)

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.reading import settings_of, user_path, yaml_of
from valuedrift_mlflow.inputs.shipped import shipped_folder
from valuedrift_mlflow.recipe.recipe import Place, Recipe, misfits
from valuedrift_mlflow.stages import stage_class
from valuedrift_mlflow.stages.stage import Stage


def recipe_names() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_folder() -> Path:
    """``entrypoints/recipes`` of the checkout, or the copy inside an installed package."""
    return shipped_folder("recipes")


def load_recipe(source: str, settings: str = "", under: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe by name or file, apply ``--set`` settings, validate.

    ``under`` are settings by their keys that are applied first, those of a design.

    Raises:
        InputError: all problems at once: unknown recipe, unreadable YAML, unknown keys, values out of range.
    """
    path = user_path(source, "recipe") if source.endswith((".yaml", ".yml")) else recipe_folder() / f"{source}.yaml"
    if not path.is_file():
        raise InputError(problem("recipe", source, ", ".join(recipe_names()) + ", or a YAML file"))
    tree = read_yaml(path, "recipe")
    with collecting() as problems:
        told = (_apply(tree, key, value, "design.set") for key, value in (under or {}).items())
        problems.add(*filter(None, told), *apply_settings(tree, settings))
        return validate(tree)


def read_yaml(path: Path, what: str) -> dict[str, object]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file cannot be read, is no YAML, or holds no mapping.
    """
    tree = settings_of(path, f"{what} {path}") or {}
    if not (isinstance(tree, dict) and all(isinstance(key, str) for key in tree)):
        raise InputError(problem(f"{what} {path}", type(tree).__name__, "a YAML mapping with texts as keys"))
    return tree


def validate(tree: dict[str, object]) -> Recipe:
    """Validate a recipe given as a mapping.

    Raises:
        InputError: all problems at once.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = _lines(error, tree)
    # The recipe's own check runs only where every key is good; what does not fit between stages is told all the same.
    lines += misfits([Place.written(stage) for stage in _stage_trees(tree) if "name" in stage])
    raise InputError(lines)


def _stage_trees(tree: dict[str, object]) -> list[dict[str, object]]:
    stages = tree.get("stages")
    return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []


def apply_settings(tree: dict[str, object], settings: str) -> list[str]:
    """Write ``key=value`` settings, separated by spaces, into a recipe; return what is wrong with them.

    ``NAME.key`` addresses the stage of that name, or every stage of the algorithm of that name.
    """
    problems: list[str] = []
    for setting in settings.split():
        key, equals, text = setting.partition("=")
        if not equals or not key:
            problems.append(problem("--set", setting, "key=value, separated by spaces"))
            continue
        try:
            # YAML reads nothing as null; an empty value is an empty text.
            value = yaml_of(text) if text else ""
        except ValueError:
            value = text
        problems.append(_apply(tree, key, value, "--set"))
    return [line for line in problems if line]


# By the names that users write.
_KEYS = [field.alias or name for name, field in Recipe.model_fields.items() if name != "stages"]


def _apply(tree: dict[str, object], key: str, value: object, said_in: str) -> str:
    """Write one setting into a recipe; what is wrong with it, or nothing."""
    stages = _stage_trees(tree)
    head, _, rest = key.partition(".")
    targets = [stage for stage in stages if head == stage.get("name")] or [
        stage for stage in stages if head == stage.get("algorithm")
    ]
    if targets and rest:
        for stage in targets:
            _write(stage, rest.split("."), value)
    elif head in _KEYS:
        _write(tree, key.split("."), value)
    else:
        known = sorted({str(stage.get(k)) for stage in stages for k in ("name", "algorithm")})
        allowed = "a key of the recipe (" + ", ".join(_KEYS) + ")"
        stage_hint = ", ".join(f"{name}.KEY" for name in known)
        return problem(said_in, key, f"{allowed} or {stage_hint}" if known else allowed)
    return ""


def _write(tree: dict[str, object], path: list[str], value: object) -> None:
    *parents, last = path
    for key in parents:
        child = tree.get(key)
        if isinstance(child, str) and key in ("data", "eval_data"):
            child = {"uri": child}
        if not isinstance(child, dict):
            child = {}
        tree[key] = child
        tree = child
    tree[last] = value


def _lines(error: ValidationError, tree: dict[str, object]) -> list[str]:
    """One line for each pydantic error, with the stage named instead of numbered."""
    given = tree.get("stages")
    stages: list[object] = given if isinstance(given, list) else []
    lines: list[str] = []
    for entry in error.errors(include_url=False):
        where = [str(part) for part in entry["loc"]]
        inside = where
        kind: type[BaseModel] = Recipe
        if len(where) >= 2 and where[0] == "stages" and where[1].isdecimal():
            stage = stages[int(where[1])]
            unnamed = f"stages[{where[1]}]"
            named = str(stage.get("name", unnamed)) if isinstance(stage, dict) else unnamed
            inside = where[2:]
            where = [named, *inside]
            try:
                kind = stage_class(stage.get("algorithm"), f"{named}.algorithm") if isinstance(stage, dict) else Stage
            except InputError as unknown:
                lines += unknown.problems
                continue
        name = ".".join(where)
        failure = entry.get("ctx", {}).get("error")
        if isinstance(failure, InputError):  # a stage's own; those of the whole recipe are found anew by the caller
            lines += failure.problems if where else []
            continue
        if entry["type"] == "extra_forbidden":
            lines.append(problem(name, entry["input"], _keys(_model_at(kind, inside[:-1])), "unknown key"))
        elif entry["type"] == "missing":
            described = _describe(_model_at(kind, inside[:-1]), inside[-1])
            lines.append(problem(name, "nothing", described, "give it a value"))
        elif entry["type"] in ("model_type", "model_attributes_type"):
            model = _model_at(kind, inside)
            uri = "a URI, or " if model is Data else ""
            lines.append(problem(name, entry["input"], f"{uri}the keys {_keys(model)}"))
        else:
            said = entry["msg"].removeprefix("Value error, ")  # of a validator of ours
            lines.append(problem(name, entry["input"], said[0].lower() + said[1:]))
    return lines


def _model_at(kind: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model of the mapping that stands at ``path``."""
    for part in path:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind = annotation
    return kind


def _keys(kind: type[BaseModel]) -> str:
    # By the names that users write: `from`, not `start`.
    return ", ".join(field.serialization_alias or key for key, field in kind.model_fields.items())


def _describe(kind: type[BaseModel], key: str) -> str:
    field = kind.model_fields.get("start" if key == "from" else key)
    return field.description or key if field else key
