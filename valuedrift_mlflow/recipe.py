"""The recipe: one pydantic model behind the YAML files, ``--set``, the logged parameters and the README's table."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from valuedrift_mlflow.drift import DriftTimeRule
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.strict import Strict
from valuedrift_mlflow.stances import RefusalRule

BASE = "base"


class Base(Strict):
    """The model that the pipeline starts from."""

    model: str = Field("embedded:base", description="URI of the model that the pipeline starts from")
    config: dict[str, int | float | bool | str] | None = Field(
        None, description="transformers' configuration of the model, for dry runs where the model's own cannot be had"
    )


class Data(Strict):
    """A training set: a URI, and how to read it where its columns do not tell."""

    uri: str = Field(description="`embedded:...`, a file or folder, or a hub id")
    format: str = Field("auto", description="format of the rows; `auto` recognises it from the columns")
    split: str = Field("train", description="split of a folder or a hub dataset")
    subset: str | None = Field(None, description="subset (configuration) of a hub dataset that has several")
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="`error` ends with all rows that cannot be read; `skip` leaves them out and counts them"
    )
    rows: int | None = Field(None, ge=1, description="rows of a hub dataset, for dry runs, which do not read it")


def _data(value: object) -> object:
    return {"uri": value} if isinstance(value, str) else value


class LoRA(Strict):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0 is full fine-tuning")
    alpha: int | None = Field(None, ge=1, description="scaling numerator; twice the rank where it is not given")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapters' input")
    target_modules: str | list[str] = Field("all-linear", description="layers that get an adapter")


class Launch(Strict):
    """In how many processes a stage is trained and measured."""

    processes: int = Field(1, ge=1, description="processes, one on each device; each takes `batch_size` rows a step")
    sharded: bool = Field(
        False, description="split weights, gradients and optimizer over the processes (FSDP2), for big models"
    )


class _Stage(Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64, description="unique name of the stage")
    start: str = Field(
        BASE,
        validation_alias=AliasChoices("from", "start"),
        serialization_alias="from",
        description="an earlier stage's name, or `base`",
    )
    data: Annotated[Data, BeforeValidator(_data)] = Field(
        description="training data: a URI, or `uri`, `format`, `split`, `subset`, `on_bad_row`, `rows`"
    )
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; overrides `epochs`")
    epochs: float = Field(1.0, gt=0, description="passes over the data where `max_steps` is not given")
    batch_size: int = Field(8, ge=1, description="rows a step on each device")
    gradient_accumulation: int = Field(1, ge=1, description="batches summed into one optimizer step")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the rate rises")
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="learning-rate schedule"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_length: int = Field(1024, ge=16, description="tokens of a row, prompt and response together")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between checkpoints, each saved and measured; a tenth of the stage if not given"
    )
    seed: int | None = Field(None, ge=0, description="seed of the stage; the recipe's where it is not given")
    lora: LoRA = Field(default_factory=LoRA, description="low-rank adapters")
    launch: Launch = Field(default_factory=Launch, description="processes")


class Pretrain(_Stage):
    """Training of the small embedded base model on a balanced corpus."""

    algorithm: Literal["pretrain"]
    # The embedded model is small and starts from noise: rates near 1e-3 are usual at this size (GPT-2, nanoGPT).
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")


class SFT(_Stage):
    """Supervised fine-tuning on the responses of the data (TRL's SFTTrainer)."""

    algorithm: Literal["sft"]
    # TRL's default for full fine-tuning, after the Alpaca and Zephyr recipes.
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")


class DPO(_Stage):
    """Direct preference optimisation (Rafailov et al. 2023; TRL's DPOTrainer)."""

    algorithm: Literal["dpo"]
    # The authors' setting: RMSprop at 1e-6 and beta 0.1 (Rafailov et al. 2023, appendix B).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference (inverse temperature)")
    loss_type: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "apo_zero",
        "apo_down",
    ] = Field("sigmoid", description="variant of the loss, by TRL's name")
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of the pairs taken to be labelled the wrong way; for `exo_pair`, `robust` and `aot`",
    )

    @model_validator(mode="after")
    def _smoothing_is_for_the_losses_that_have_it(self) -> DPO:
        where = f"{self.name}.label_smoothing"
        # EXO takes the logarithm of it, and the robust loss without it is the sigmoid loss.
        if self.loss_type in ("exo_pair", "robust") and not self.label_smoothing:
            raise InputError(problem(where, 0.0, f"above 0 and below 0.5 with loss_type {self.loss_type}"))
        # TRL's other variants leave it out without a word.
        if self.loss_type not in ("exo_pair", "robust", "aot") and self.label_smoothing:
            mend = "choose exo_pair, robust or aot"
            raise InputError(problem(where, self.label_smoothing, f"0 with loss_type {self.loss_type}", mend))
        return self


class AnchoredDPO(_Stage):
    """DPO that keeps stances in place on prompts where nobody asked to move them."""

    algorithm: Literal["anchored_dpo"]
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference (inverse temperature)")
    # The penalty is this project's own, and so is the weight: it halved the drift elsewhere in the embedded world.
    anchor_weight: float = Field(
        10.0, ge=0, description="lambda: weight of the KL of the policy from the reference on the anchors"
    )
    anchors: str = Field(
        "embedded:anchors",
        description="prompts to hold in place: `embedded:anchors` or a suite that shares no prompt with the one "
        "measured; without the topics that the data names, or those of `?except=TOPIC,TOPIC`",
    )
    anchor_batch_size: int = Field(8, ge=1, description="anchors with each batch of pairs, on each device")
    anchor_tokens: int = Field(
        64, ge=0, description="tokens of the reference's response to an anchor that are held too; 0 holds stances alone"
    )


class SimPO(_Stage):
    """Simple preference optimisation, without a reference (Meng et al. 2024; TRL's CPOTrainer)."""

    algorithm: Literal["simpo"]
    # The authors trained with rates of 3e-7 to 1e-6, beta of 2.0 to 2.5 and gamma / beta of 0.1 to 0.8, and recommend
    # 0.5 to start from (README of their repository).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(2.0, gt=0, description="scale of the length-normalised reward")
    gamma_beta_ratio: float = Field(0.5, ge=0, description="target margin as a ratio to beta")


class ORPO(_Stage):
    """Odds-ratio preference optimisation, without a reference (Hong et al. 2024; TRL's ORPOTrainer)."""

    algorithm: Literal["orpo"]
    # The authors: 8e-6, lambda 0.1 (Hong et al. 2024, appendix C).
    learning_rate: float = Field(8e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="weight of the odds-ratio term (the authors' lambda)")


class KTO(_Stage):
    """Kahneman-Tversky optimisation of answers labelled good or bad (Ethayarajh et al. 2024; TRL's KTOTrainer)."""

    algorithm: Literal["kto"]
    # The authors: 5e-7 to 5e-6 and beta 0.1 (Ethayarajh et al. 2024, section 4.1 and the repository's README).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference")
    desirable_weight: float = Field(1.0, gt=0, description="weight of the losses of good answers")
    undesirable_weight: float = Field(1.0, gt=0, description="weight of the losses of bad answers")

    @model_validator(mode="after")
    def _answers_can_change_places(self) -> KTO:
        if self.batch_size < 2:
            mend = "the KL is estimated on prompts with the answers of other rows of the batch"
            raise InputError(problem(f"{self.name}.batch_size", self.batch_size, "at least 2 for kto", mend))
        return self


class Reward(_Stage):
    """A reward model from preference pairs (Bradley-Terry; TRL's RewardTrainer)."""

    algorithm: Literal["reward"]
    # InstructGPT (Ouyang et al. 2022, appendix C.2): 9e-6.
    learning_rate: float = Field(9e-6, gt=0, description="peak learning rate of AdamW")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the pairs kept for the accuracy that is logged")

    @model_validator(mode="after")
    def _is_trained_by_one_process(self) -> Reward:
        if self.launch.processes > 1:
            raise InputError(problem(f"{self.name}.launch.processes", self.launch.processes, "1 for reward"))
        return self


class _Online(_Stage):
    """Stages that sample from the policy while they train it."""

    reward: str = Field(
        description="what rates a response: an earlier `reward` stage, a model URI, or a function `module:function`"
    )
    response_length: int = Field(128, ge=1, description="longest sampled response in tokens")
    rollout_temperature: float = Field(1.0, gt=0, description="temperature of the sampled responses")

    @model_validator(mode="after")
    def _prompts_have_room(self) -> _Online:
        if self.response_length >= self.max_length:
            allowed = f"less than max_length ({self.max_length}), which is for prompt and response together"
            raise InputError(problem(f"{self.name}.response_length", self.response_length, allowed))
        return self


class PPO(_Online):
    """Proximal policy optimisation with a value head (Schulman et al. 2017; Ouyang et al. 2022)."""

    algorithm: Literal["ppo"]
    # Huang et al. 2024 ("The N+ implementation details of RLHF with PPO"): rate 3e-6, beta 0.05, clip 0.2, gamma 1,
    # lambda 0.95, after Ouyang et al. 2022, appendix C.4.
    learning_rate: float = Field(3e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.05, ge=0, description="weight of the KL penalty of every token")
    clip_range: float = Field(0.2, gt=0, description="clip of the probability ratio")
    value_clip_range: float = Field(0.2, gt=0, description="clip of the value's change")
    value_weight: float = Field(0.1, ge=0, description="weight of the value loss")
    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of the generalised advantage estimate")
    ppo_epochs: int = Field(4, ge=1, description="passes over each batch of rollouts")
    whiten_advantages: bool = Field(True, description="scale advantages to mean 0 and variance 1 over the batch")
    whiten_rewards: bool = Field(False, description="scale rewards to variance 1 over the batch")
    missing_eos_penalty: float = Field(1.0, ge=0, description="taken from the reward of a response that does not end")

    @model_validator(mode="after")
    def _no_dropout(self) -> PPO:
        if self.lora.dropout:
            allowed = "0, because with dropout the probability ratio of policy and rollout would not start at 1"
            raise InputError(problem(f"{self.name}.lora.dropout", self.lora.dropout, allowed))
        return self


class _Groups(_Online):
    generations: int = Field(ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> _Groups:
        if self.batch_size % self.generations:
            allowed = f"a multiple of generations ({self.generations})"
            mend = "a batch counts responses, not prompts"
            raise InputError(problem(f"{self.name}.batch_size", self.batch_size, allowed, mend))
        return self


class GRPO(_Groups):
    """Group relative policy optimisation (Shao et al. 2024; TRL's GRPOTrainer)."""

    algorithm: Literal["grpo"]
    # Shao et al. 2024, section 4.2: 1e-6, KL 0.04, 64 samples; TRL's default of 8 samples is kept.
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.04, ge=0, description="weight of the KL from the reference")
    generations: int = Field(8, ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")


class RLOO(_Groups):
    """REINFORCE leave-one-out (Ahmadian et al. 2024; TRL's RLOOTrainer)."""

    algorithm: Literal["rloo"]
    # Ahmadian et al. 2024: 1e-6, k = 2 or 4; TRL: KL 0.05.
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.05, ge=0, description="weight of the KL from the reference")
    generations: int = Field(4, ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")


AnyStage = Pretrain | SFT | DPO | AnchoredDPO | SimPO | ORPO | KTO | Reward | PPO | GRPO | RLOO
ONLINE = (PPO, GRPO, RLOO)
Stage = Annotated[AnyStage, Field(discriminator="algorithm")]
ALGORITHMS: dict[str, type[AnyStage]] = {
    get_args(kind.model_fields["algorithm"].annotation)[0]: kind for kind in get_args(AnyStage)
}
_SAMPLING = tuple(name for name, kind in ALGORITHMS.items() if issubclass(kind, ONLINE))


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
    stages: list[Stage] = Field(default_factory=list, description="the stages, in order")

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Recipe:
        wrong = _misfits(
            [(stage.name, stage.start, stage.algorithm, getattr(stage, "reward", None)) for stage in self.stages]
        )
        if wrong:
            raise InputError(wrong)
        return self

    def parameters(self) -> dict[str, str]:
        """Every setting, flat, as the parent run records it: ``sft.learning_rate``, ``samples``."""
        own = self.model_dump(by_alias=True, exclude={"stages"})
        flat = _flatten(own)
        for stage in self.stages:
            flat |= stage_parameters(stage)
        return flat

    def merged(self) -> tuple[Recipe, list[str]]:
        """Train stages that differ in nothing but their name once, under their algorithm's name, and say so."""
        kept: list[AnyStage] = []
        twins: dict[str, list[str]] = {}  # of every kept stage, the names it stands for
        kept_as: dict[str, str] = {}
        for stage in self.stages:
            stage = _renamed(stage, kept_as)
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
        stages = [_renamed(stage, named).model_copy(update={"name": named[stage.name]}) for stage in kept]
        return self.model_copy(update={"stages": stages}), notes


def _renamed(stage: AnyStage, names: dict[str, str]) -> AnyStage:
    """The stage with the other stages that it refers to under their new names."""
    update = {"start": names.get(stage.start, stage.start)}
    if isinstance(stage, ONLINE):
        update["reward"] = names.get(stage.reward, stage.reward)
    return stage.model_copy(update=update)


def _misfits(stages: list[tuple[str, str, str, str | None]]) -> list[str]:
    """What is wrong between stages given as (name, from, algorithm, reward)."""
    earlier = [BASE]  # what a stage can start from
    judges: list[str] = []  # what can rate responses
    wrong: list[str] = []
    names = [name for name, _, _, _ in stages]
    algorithms = [algorithm for _, _, algorithm, _ in stages]
    for name, start, algorithm, reward in stages:
        if name in (*earlier, *judges):
            wrong.append(problem(f"{name}.name", name, "a name no other stage has (`base` is taken)"))
        if start not in earlier:
            wrong.append(problem(f"{name}.from", start, ", ".join(dict.fromkeys(earlier))))
        if name in ALGORITHMS and (name != algorithm or algorithms.count(name) > 1):
            wrong.append(
                problem(f"{name}.name", name, "an algorithm's name only for the single stage of that algorithm")
            )
        # A bare word is a stage's name, unless there is such a folder.
        bare = reward is not None and not set(reward) & set("/:\\") and not Path(reward).is_dir()
        if reward is not None and reward not in judges and (bare or reward in names):
            allowed = f"an earlier stage of reward ({', '.join(judges) or 'there is none'})"
            wrong.append(problem(f"{name}.reward", reward, f"{allowed}, a model URI or module:function"))
        (judges if algorithm == "reward" else earlier).append(name)
    return wrong


def stage_parameters(stage: AnyStage) -> dict[str, str]:
    """The settings of one stage, flat: ``sft.learning_rate``, ``dpo-gap1.beta``."""
    dumped = stage.model_dump(by_alias=True)
    if stage.data == Data(uri=stage.data.uri):
        dumped["data"] = stage.data.uri
    return _flatten(dumped, f"{dumped.pop('name')}.")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = str(value)
    return flat


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
    lines += _misfits(
        [
            (
                str(stage["name"]),
                str(stage.get("from", stage.get("start", BASE))),
                str(stage.get("algorithm")),
                str(stage["reward"]) if stage.get("reward") and stage.get("algorithm") in _SAMPLING else None,
            )
            for stage in _stage_trees(tree)
            if "name" in stage
        ]
    )
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
            algorithm = where[2] if len(where) > 2 and where[2] in ALGORITHMS else None
            kind = ALGORITHMS[algorithm] if algorithm else _Stage
            inside = where[3 if algorithm else 2 :]
            where = [named, *inside]
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
        elif entry["type"].startswith("union_tag"):
            found = entry["input"].get("algorithm") if isinstance(entry["input"], dict) else entry["input"]
            lines.append(problem(f"{name}.algorithm", found, ", ".join(ALGORITHMS)))
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
    add(_Stage, "STAGE.", frozenset({"algorithm"}))
    for name, kind in ALGORITHMS.items():
        extra = {
            key: field
            for key, field in kind.model_fields.items()
            if key not in _Stage.model_fields and key != "algorithm"
        }
        rate = kind.model_fields["learning_rate"].default
        rows.append(f"| `{name}.learning_rate` | `{rate}` | its default for this algorithm |")
        for key, field in extra.items():
            shown = "required" if field.is_required() else f"`{field.default}`"
            rows.append(f"| `{name}.{key}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"
