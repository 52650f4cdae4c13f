"""The recipe: one pydantic model behind the YAML files, ``--set``, the logged parameters and the README's table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from valuedrift_mlflow.data_settings import Data
from valuedrift_mlflow.drift import DriftTimeRule
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.strict import Strict, flat
from valuedrift_mlflow.stages import ALGORITHMS, stage_class
from valuedrift_mlflow.stages.stage import BASE, Online, Stage
from valuedrift_mlflow.stances import RefusalRule


class Base(Strict):
    """The model that the pipeline starts from."""

    model: str = Field("embedded:base", description="URI of the model that the pipeline starts from")
    config: dict[str, int | float | bool | str] | None = Field(
        None, description="transformers' configuration of the model, for dry runs where the model's own cannot be had"
    )


def _by_its_class(settings: object) -> object:
    """A stage's settings, read by the class of its algorithm; what is no mapping is left to pydantic."""
    if not isinstance(settings, dict):
        return settings
    return stage_class(settings.get("algorithm")).model_validate(settings)


class Recipe(Strict):
    """A whole experiment: where it starts, its stages in order, and how stances are measured."""

    base: Base = Field(default_factory=Base, description="the model that the pipeline starts from")
    suite: str = Field("vaes", description="suite URI; `?topics=a,b` and `per_topic=5` take a part of it")
    judge: str = Field("lexical", description="judge URI")
    samples: int = Field(5, ge=1, description="responses a prompt, at the start and the end of a stage")
    checkpoint_samples: int | None = Field(
        None, ge=1, description="responses a prompt at the checkpoints between; `samples` where it is not given"
    )
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    max_new_tokens: int = Field(256, ge=1, description="longest response in tokens")
    generation_batch_size: int = Field(64, ge=1, description="responses generated at once")
    refusal: RefusalRule = Field("neutral", description="a refusal counts as neutral, or is left out")
    drift_time: DriftTimeRule = Field(
        "extreme_interval",
        description="drift time is the first step inside the interval of the extreme value, or with 95 % of the change "
        "(`share_of_change`)",
    )
    reference_kl: bool = Field(
        True, description="measure the KL from the stage's start (full fine-tuning keeps a frozen copy of it)"
    )
    audit: bool = Field(
        True, description="the pipeline audits its training data first: their stances, and the value gap of pairs"
    )
    seed: int = Field(0, ge=0, description="seed of data, training and sampling")
    stages: list[Annotated[SerializeAsAny[Stage], BeforeValidator(_by_its_class)]] = Field(
        default_factory=list, description="the stages, in order"
    )

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Recipe:
        wrong = _misfits([_Place.of(stage) for stage in self.stages])
        if wrong:
            raise InputError(wrong)
        return self

    def parameters(self) -> dict[str, str]:
        """Every setting, flat, as the parent run records it: ``sft.learning_rate``, ``samples``."""
        own = self.model_dump(by_alias=True, exclude={"stages"})
        found = flat(own)
        for stage in self.stages:
            found |= stage.parameters()
        return found

    def merged(self) -> tuple[Recipe, list[str]]:
        """Train stages that differ in nothing but their name once, under their algorithm's name, and say so."""
        kept: list[Stage] = []
        twins: dict[str, list[str]] = {}  # of every kept stage, the names it stands for
        kept_as: dict[str, str] = {}
        for stage in self.stages:
            stage = stage.renamed(kept_as)
            twin = next((o for o in kept if o.model_copy(update={"name": stage.name}) == stage), stage)
            if twin is stage:
                kept.append(stage)
            twins.setdefault(twin.name, []).append(stage.name)
            kept_as[stage.name] = twin.name
        # Names are given last: only then is it known whether the algorithm's name is clear.
        algorithms = [stage.algorithm for stage in kept]
        named = {
            stage.name: stage.algorithm
            if len(twins[stage.name]) > 1 and algorithms.count(stage.algorithm) == 1
            else stage.name
            for stage in kept
        }
        notes = [
            f"{' and '.join(names)} have the same settings: trained once, as {named[name]}"
            for name, names in twins.items()
            if len(names) > 1
        ]
        stages = [stage.renamed(named).model_copy(update={"name": named[stage.name]}) for stage in kept]
        return self.model_copy(update={"stages": stages}), notes


class _Place(NamedTuple):
    """What a stage says of itself and of other stages, be it right or wrong."""

    name: str
    start: str
    algorithm: str
    rated_by: str | None
    trains: Literal["policy", "reward"]

    @classmethod
    def of(cls, stage: Stage) -> _Place:
        """The place of a stage that is good in itself."""
        return cls(stage.name, stage.start, stage.algorithm, stage.rated_by, stage.trains)

    @classmethod
    def written(cls, tree: Mapping[str, object]) -> _Place:
        """The place of a stage as it is written."""
        kind, reward = _class_of(tree), tree.get("reward")
        return cls(
            name=str(tree["name"]),
            start=str(tree.get("from", tree.get("start", BASE))),
            algorithm=str(tree.get("algorithm")),
            rated_by=str(reward) if reward is not None and issubclass(kind, Online) else None,
            trains=kind.trains,
        )


def _class_of(tree: Mapping[str, object]) -> type[Stage]:
    """The class of a stage as it is written; that of all stages where its algorithm is not known."""
    try:
        return stage_class(tree.get("algorithm"))
    except InputError:
        return Stage


def _misfits(places: Sequence[_Place]) -> list[str]:
    """What is wrong between stages."""
    earlier = [BASE]  # what a stage can start from
    judges: list[str] = []  # what can rate responses
    wrong: list[str] = []
    names = [place.name for place in places]
    algorithms = [place.algorithm for place in places]
    for name, start, algorithm, rated_by, trains in places:
        if name in (*earlier, *judges):
            wrong.append(problem(f"{name}.name", name, "a name no other stage has (`base` is taken)"))
        if start not in earlier:
            wrong.append(problem(f"{name}.from", start, ", ".join(dict.fromkeys(earlier))))
        if name in ALGORITHMS and (name != algorithm or algorithms.count(name) > 1):
            wrong.append(
                problem(f"{name}.name", name, "an algorithm's name only for the single stage of that algorithm")
            )
        # A bare word is a stage's name, unless there is such a folder.
        bare = rated_by is not None and not set(rated_by) & set("/:\\") and not Path(rated_by).is_dir()
        if rated_by is not None and rated_by not in judges and (bare or rated_by in names):
            allowed = f"an earlier stage of reward ({', '.join(judges) or 'there is none'})"
            wrong.append(problem(f"{name}.reward", rated_by, f"{allowed}, a model URI or module:function"))
        (judges if trains == "reward" else earlier).append(name)
    return wrong


def recipe_names() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_folder() -> Path:
    """``entrypoints/recipes`` of the checkout, or the copy inside an installed package."""
    package = Path(str(files("valuedrift_mlflow")))
    checkout = package.parent / "entrypoints" / "recipes"
    return checkout if checkout.is_dir() else package / "recipes"


def load(source: str, settings: str = "") -> Recipe:
    """Read a recipe by name or file, apply ``--set`` settings, validate.

    Raises:
        InputError: all problems at once: unknown recipe, unreadable YAML, unknown keys, values out of range.
    """
    path = Path(source) if source.endswith((".yaml", ".yml")) else recipe_folder() / f"{source}.yaml"
    if not path.is_file():
        raise InputError(problem("recipe", source, ", ".join(recipe_names()) + ", or a YAML file"))
    tree = read_yaml(path, "recipe")
    with collecting() as problems:
        problems.add(*apply_settings(tree, settings))
        return validate(tree)


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file is no YAML, or holds no mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, or no UTF-8
        raise InputError(problem(f"{what} {path}", str(error), "a YAML mapping")) from None
    if not isinstance(tree, dict):
        raise InputError(problem(f"{what} {path}", type(tree).__name__, "a YAML mapping"))
    return tree


def validate(tree: dict[str, Any]) -> Recipe:
    """Validate a recipe given as a mapping.

    Raises:
        InputError: all problems at once.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = _lines(error, tree)
    lines += _misfits([_Place.written(stage) for stage in _stage_trees(tree) if "name" in stage])
    raise InputError(lines)


def _stage_trees(tree: dict[str, Any]) -> list[dict[str, Any]]:
    stages = tree.get("stages")
    return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []


def apply_settings(tree: dict[str, Any], settings: str) -> list[str]:
    """Write ``key=value`` settings, separated by spaces, into a recipe; return what is wrong with them.

    ``NAME.key`` addresses the stage of that name, or every stage of the algorithm of that name.
    """
    problems: list[str] = []
    stages = _stage_trees(tree)
    for setting in settings.split():
        key, equals, text = setting.partition("=")
        if not equals or not key:
            problems.append(problem("--set", setting, "key=value, separated by spaces"))
            continue
        try:
            value = yaml.load(text, Loader=_Yaml) if text else ""
        except (yaml.YAMLError, ValueError):
            value = text
        head, _, rest = key.partition(".")
        targets = [stage for stage in stages if head == stage.get("name")] or [
            stage for stage in stages if head == stage.get("algorithm")
        ]
        if targets and rest:
            for stage in targets:
                _write(stage, rest.split("."), value)
        elif head in Recipe.model_fields and head != "stages":
            _write(tree, key.split("."), value)
        else:
            known = sorted({str(stage.get(k)) for stage in stages for k in ("name", "algorithm")})
            allowed = "a key of the recipe (" + ", ".join(k for k in Recipe.model_fields if k != "stages") + ")"
            stage_hint = ", ".join(f"{name}.KEY" for name in known)
            problems.append(problem("--set", key, f"{allowed} or {stage_hint}" if known else allowed))
    return problems


class _Yaml(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML reads ``1e-5`` as a string."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _write(tree: dict[str, Any], path: list[str], value: object) -> None:
    *parents, last = path
    for key in parents:
        child = tree.get(key)
        if isinstance(child, str) and key == "data":
            child = {"uri": child}
        if not isinstance(child, dict):
            child = {}
        tree[key] = child
        tree = child
    tree[last] = value


def _lines(error: ValidationError, tree: dict[str, Any]) -> list[str]:
    """One line for each pydantic error, with the stage named instead of numbered."""
    stages = tree.get("stages") or []
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
            lines.append(problem(name, entry["input"], entry["msg"][0].lower() + entry["msg"][1:]))
    return lines


def _model_at(kind: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model of the mapping that stands at ``path``."""
    for part in path:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind = annotation
    return kind


def _keys(kind: type[BaseModel]) -> str:
    return ", ".join(field.serialization_alias or key for key, field in kind.model_fields.items())


def _describe(kind: type[BaseModel], key: str) -> str:
    field = kind.model_fields.get("start" if key == "from" else key)
    return field.description or key if field else key


def markdown_table() -> str:
    """The README's table of recipe keys, made from the models above."""
    rows = ["| key | default | meaning |", "|---|---|---|"]

    def add(kind: type[BaseModel], prefix: str, skip: frozenset[str] = frozenset()) -> None:
        for key, field in kind.model_fields.items():
            if key in skip:
                continue
            name = prefix + (field.serialization_alias or key)
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not field.is_required():
                add(annotation, f"{name}.")
                continue
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            shown = "" if default is None else f"`{default}`" if default != "required" else "required"
            rows.append(f"| `{name}` | {shown} | {field.description or ''} |")

    add(Recipe, "", frozenset({"stages"}))
    rows.append("| `stages` | | a list; each stage has the keys below |")
    rows.append(f"| `STAGE.algorithm` | required | one of {', '.join(f'`{name}`' for name in ALGORITHMS)} |")
    add(Stage, "STAGE.", frozenset({"algorithm"}))
    for name, kind in ALGORITHMS.items():
        extra = {
            key: field
            for key, field in kind.model_fields.items()
            if key not in Stage.model_fields and key != "algorithm"
        }
        rate = kind.model_fields["learning_rate"].default
        rows.append(f"| `{name}.learning_rate` | `{rate}` | its default for this algorithm |")
        for key, field in extra.items():
            shown = "required" if field.is_required() else f"`{field.default}`"
            rows.append(f"| `{name}.{key}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"
