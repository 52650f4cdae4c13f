"""The recipe: one pydantic model behind the YAML files, ``--set``, the logged parameters and ``docs/recipes.md``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.settings import MeasuringTraining
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.strict import Strict, flat
from valuedrift_mlflow.models.how import How
from valuedrift_mlflow.stages import ALGORITHMS, stage_class
from valuedrift_mlflow.stages.stage import BASE, Online, Stage


class Base(Strict):
    """The model that the pipeline starts from."""

    model: str = Field("embedded:base", description="URI of the model that the pipeline starts from")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision in which models are loaded, trained and measured; `auto` is that of the weights, and "
        "float32 where all weights are trained",
    )
    attn_implementation: str | None = Field(
        None, description="attention by transformers' name: `eager`, `sdpa`, `flash_attention_2`, ..."
    )
    quantization: Literal["4bit"] | None = Field(
        None, description="`4bit` loads the weights below adapters in 4 bits (NF4; extra `quant`; a CPU can, slowly)"
    )
    trust_remote_code: bool = Field(
        False, description="run the code that comes with the model; nothing else lets such code run"
    )
    config: dict[str, int | float | bool | str] | None = Field(
        None, description="transformers' configuration of the model, for dry runs where the model's own cannot be had"
    )


class Checkpoints(Strict):
    """What is logged of the checkpoints; all of them are measured."""

    log: Literal["all", "final", "adapters", "none"] = Field(
        "all",
        description="whose weights go to the tracking store: `all` checkpoints', the `final` one's of each stage, "
        "`adapters` alone (not the models below them that a hub or the store has), or `none`",
    )


def check_logged(recipe: Recipe, stage: Stage) -> None:
    """Refuse a stage that has nothing of what is to be logged of its weights.

    Raises:
        InputError: it has no adapters, and adapters alone are to be logged.
    """
    where, found = "checkpoints.log", recipe.checkpoints.log
    if found == "adapters" and stage.trains == "reward":
        raise InputError(problem(where, found, f"all, final or none for {stage.name}: a reward model's head is whole"))
    if found == "adapters" and not stage.lora.rank:
        allowed, mend = f"all, final or none for {stage.name}, which trains all weights", "or set {}.lora.rank"
        raise InputError(problem(where, found, allowed, mend.format(stage.name)))


def check_precision(base: Base, stage: Stage) -> None:
    """Refuse a stage that cannot be trained in the precision of the recipe's models.

    Raises:
        InputError: all problems at once.
    """
    full, mend = not stage.lora.rank, f"train adapters ({stage.name}.lora.rank)"
    where, found = "base.quantization", base.quantization
    with collecting() as problems:
        if base.dtype == "float16" and full:
            allowed = f"auto, float32 or bfloat16 for {stage.name}, which trains all weights"
            problems.add(problem("base.dtype", base.dtype, allowed, mend))
        if found and full:
            problems.add(problem(where, found, f"nothing for {stage.name}, which trains all weights", mend))
        if found and stage.trains == "reward":
            problems.add(problem(where, found, f"nothing for {stage.name}: a reward model's new head is whole"))
        if found and stage.launch.sharded:
            problems.add(problem(where, found, f"nothing for {stage.name}: its weights are split (launch.sharded)"))


def _by_its_class(settings: object) -> object:
    """A stage's settings, read by the class of its algorithm; what is no mapping is left to pydantic."""
    if not isinstance(settings, dict):
        return settings
    # By the name in the recipe, not by a union of classes: a user's class is known only once it is asked for.
    return stage_class(settings.get("algorithm")).model_validate(settings)


class Recipe(MeasuringTraining):
    """A whole experiment: where it starts, its stages in order, and how stances are measured."""

    base: Base = Field(default_factory=Base, description="the model that the pipeline starts from")
    checkpoints: Checkpoints = Field(default_factory=Checkpoints, description="what is logged of the checkpoints")
    suite: str = Field("vaes", description="suite URI; `?topics=a,b` and `per_topic=5` take a part of it")
    reference_kl: bool = Field(
        True, description="measure the KL from the stage's start, on what the start said to the suite's prompts"
    )
    audit: bool = Field(
        True, description="the pipeline audits its training data first: their stances, and the value gap of pairs"
    )
    allow_pyfunc_code: bool = Field(
        False, description="let MLflow load models that are more than weights, which runs code that they bring"
    )
    embedder: str | None = Field(
        None,
        description="sentence encoder by which audits find rows beside their words: `minilm` (extra `embeddings`), "
        "a folder or a hub id",
    )
    # `register` is a method of every class that has an ABC's metaclass.
    registered: str | None = Field(
        None,
        alias="register",
        description="name of the registered model that the last stage's model becomes a version of, with its stance "
        "card as description and the alias `candidate`; `NAME@ALIAS` for another alias",
    )
    # SerializeAsAny: else pydantic would write a stage by the fields of `Stage`, without those of its algorithm.
    stages: list[Annotated[SerializeAsAny[Stage], BeforeValidator(_by_its_class)]] = Field(
        default_factory=list, description="the stages, in order"
    )

    @field_validator("registered")
    @classmethod
    def _is_a_name(cls, named: str | None) -> str | None:
        name, at, alias = (named or "").partition("@")
        if named is not None and (not tracking.is_model_name(name) or (at and not alias)):
            raise InputError(problem("register", named, "NAME or NAME@ALIAS, the name without / : . % and quotes"))
        if alias:
            tracking.check_alias(alias, "register")
        return named

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Recipe:
        wrong = misfits([Place.of(stage) for stage in self.stages])
        if wrong:
            raise InputError(wrong)
        return self

    @property
    def how(self) -> How:
        """How the recipe's models are loaded, and what code of theirs may run."""
        base = self.base
        return How(
            base.dtype, base.attn_implementation, base.quantization, base.trust_remote_code, self.allow_pyfunc_code
        )

    def parameters(self) -> dict[str, str]:
        """Every setting, flat, as the parent run records it: ``sft.learning_rate``, ``samples``."""
        own = self.model_dump(by_alias=True, exclude={"stages"})
        settings = flat(own)
        for stage in self.stages:
            settings |= stage.parameters()
        return settings

    def measuring(self) -> dict[str, str]:
        """What decides how models are measured, and the model that all starts from, as a run records it."""
        fields = {"base", "suite", *MeasuringTraining.model_fields} - {"seed"}
        return flat(self.model_dump(by_alias=True, include=fields))

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
            if len(twins[stage.name]) > 1 and algorithms.count(stage.algorithm) == 1 and stage.algorithm in ALGORITHMS
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


def name_and_alias(named: str) -> tuple[str, str]:
    """The two parts of ``NAME@ALIAS``; the alias is ``candidate`` where there is none.

    >>> name_and_alias("assistant"), name_and_alias("assistant@staging")
    (('assistant', 'candidate'), ('assistant', 'staging'))
    """
    name, _, alias = named.partition("@")
    return name, alias or "candidate"


class Place(NamedTuple):
    """What a stage says of itself and of other stages, be it right or wrong."""

    name: str
    start: str
    algorithm: str
    rated_by: str | None
    trains: Literal["policy", "reward"]

    @classmethod
    def of(cls, stage: Stage) -> Place:
        """The place of a stage that is good in itself."""
        return cls(stage.name, stage.start, stage.algorithm, stage.rated_by, stage.trains)

    @classmethod
    def written(cls, tree: Mapping[str, object]) -> Place:
        """The place of a stage as it is written."""
        kind, reward = class_of(tree), tree.get("reward")
        return cls(
            name=str(tree["name"]),
            start=str(tree.get("from", tree.get("start", BASE))),
            algorithm=str(tree.get("algorithm")),
            rated_by=str(reward) if reward is not None and issubclass(kind, Online) else None,
            trains=kind.trains,
        )


def misfits(places: Sequence[Place]) -> list[str]:
    """What is wrong between stages."""
    # Filled on the way: a stage may start from what stands before it, and nothing else.
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
        bare = rated_by is not None and not set(rated_by) & set("/:\\") and not os.path.isdir(rated_by)
        if rated_by is not None and rated_by not in judges and (bare or rated_by in names):
            allowed = f"an earlier stage of reward ({', '.join(judges) or 'there is none'})"
            wrong.append(problem(f"{name}.reward", rated_by, f"{allowed}, a model URI or module:function"))
        (judges if trains == "reward" else earlier).append(name)
    return wrong


def class_of(tree: Mapping[str, object]) -> type[Stage]:
    """The class of a stage as it is written; that of all stages where its algorithm is not known."""
    try:
        return stage_class(tree.get("algorithm"))
    except InputError:
        return Stage
