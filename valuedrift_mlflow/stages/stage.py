"""What all stages share: their settings, and what a class says of its algorithm.

An algorithm is one file beside this one: its settings (a subclass of ``Stage``), its formula with the source, and
``build``, which makes its trainer. What is heavy is imported where it is built, so that a recipe is read in a blink.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, JsonValue, model_validator

from valuedrift_mlflow.data.settings import Data, Kind, Turns
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.strict import Strict, flat
from valuedrift_mlflow.models.speech import Speech

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

    from valuedrift_mlflow.data.datasets import TrainingData
    from valuedrift_mlflow.stages.rewards import RewardFunction
    from valuedrift_mlflow.suite import Suite

BASE = "base"


def _data(value: object) -> object:
    return {"uri": value} if isinstance(value, str) else value


class LoRA(Strict):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0 is full fine-tuning")
    alpha: int | None = Field(None, ge=1, description="scaling numerator; twice the rank where it is not given")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout on the adapters' input; for `sft`, elsewhere with `trainer.disable_dropout: false` alone",
    )
    target_modules: str | list[str] = Field("all-linear", description="layers that get an adapter")
    use_dora: bool = Field(False, description="adapt direction and magnitude apart (DoRA, Liu et al. 2024)")
    rslora: bool = Field(False, description="scale by the root of the rank (rsLoRA, Kalajdzievski 2023)")
    modules_to_save: list[str] | None = Field(
        None, description="layers that are trained whole and saved beside the adapters, such as `lm_head`"
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="any other field of peft's LoraConfig, such as `init_lora_weights`"
    )

    def config(self) -> LoraConfig | None:
        """The adapters as peft knows them, None for full fine-tuning."""
        if not self.rank:
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha or 2 * self.rank,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            use_dora=self.use_dora,
            use_rslora=self.rslora,
            modules_to_save=self.modules_to_save,
            task_type="CAUSAL_LM",
            **self._further,
        )

    @property
    def _further(self) -> dict[str, Any]:  # of many types: they are checked against LoraConfig's own
        return dict(self.options)


class Launch(Strict):
    """In how many processes a stage is trained and measured."""

    processes: int = Field(
        1, ge=1, description="processes on each machine, one on each device; each takes `batch_size` rows a step"
    )
    nodes: int = Field(1, ge=1, description="machines that train the stage together, each with `processes` of them")
    rendezvous: str | None = Field(
        None,
        exclude=True,  # where machines meet is no part of an experiment: it may be resumed on others
        description="HOST:PORT at which they meet: an address of the first machine, and a port that is free there",
    )
    sharded: bool = Field(
        False, description="split weights, gradients and optimizer over the processes (FSDP2), for big models"
    )

    @property
    def world(self) -> int:
        """Processes on all machines together."""
        return self.nodes * self.processes


class Stage(Strict):
    """One training: the settings that every algorithm has, and what else is asked of any of them."""

    kind: ClassVar[Kind]  # of the data that it trains on
    trains: ClassVar[Literal["policy", "reward"]] = "policy"  # a reward model answers nothing, so it has no stances
    has_reference: ClassVar[bool] = False  # a frozen copy of the start, unless adapters can be switched off
    # What its trainer is configured with, and fields of that which the algorithm decides, with the mend for each.
    configured_by: ClassVar[str] = ""
    taken: ClassVar[Mapping[str, str]] = {}
    drops_out: ClassVar[bool] = True  # whether dropout is on while it trains
    routes: ClassVar[bool] = False  # whether it can add the loss of a mixture of experts' router
    evaluates: ClassVar[bool] = False  # whether its loss can be had on rows that are held out
    # Of its command: a line for --help, a phrase for the table of commands, an example of its flags, those it takes.
    purpose: ClassVar[str] = ""
    about: ClassVar[str] = ""
    example: ClassVar[str] = ""
    flags: ClassVar[tuple[str, ...]] = ("model", "data", "resume", "nodes", "rendezvous")
    called: ClassVar[str] = ""  # the short word for an algorithm of a user, which a recipe may name by module:Stage

    if TYPE_CHECKING:
        algorithm: str  # each class has its own, behind the keys that it shares with others

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64, description="unique name of the stage")
    start: str = Field(
        BASE,
        # `from` is a word of Python's own, so that the field needs another name.
        validation_alias=AliasChoices("from", "start"),
        serialization_alias="from",
        description="an earlier stage's name, or `base`",
    )
    data: Annotated[Data, BeforeValidator(_data)] = Field(
        description="training data: a URI, or `uri`, `format`, `split`, `subset`, `revision`, `data_files`, "
        "`data_dir`, `columns`, `winner`, `min_margin`, `on_bad_row`, `rows`, `mixed_in`, `mixed_share`"
    )
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; overrides `epochs`")
    epochs: float = Field(1.0, gt=0, description="passes over the data where `max_steps` is not given")
    batch_size: int = Field(8, ge=1, description="rows a step on each device")
    gradient_accumulation: int = Field(1, ge=1, description="batches summed into one optimizer step")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the rate rises")
    schedule: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "polynomial",
        "inverse_sqrt",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "warmup_stable_decay",
    ] = Field("cosine", description="learning-rate schedule; its own settings are `trainer.lr_scheduler_kwargs`")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_length: int = Field(1024, ge=16, description="tokens of a row, prompt and response together")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between checkpoints, each saved and measured; a tenth of the stage if not given"
    )
    seed: int | None = Field(None, ge=0, description="seed of the stage; the recipe's where it is not given")
    router_loss: float | None = Field(
        None,
        ge=0,
        description="weight of the router's balancing loss in a mixture of experts, which no logged loss has in it; "
        "the model's own where its configuration has `output_router_logits`, else 0",
    )
    eval_data: Annotated[Data, BeforeValidator(_data)] | None = Field(
        None, description="rows held out, as `data`: their loss is logged at every checkpoint as `train/eval_loss`"
    )
    trainer: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="any other field of the configuration that the algorithm's trainer takes: `optim`, `packing`, "
        "`max_grad_norm`, `neftune_noise_alpha`, ...",
    )
    lora: LoRA = Field(default_factory=LoRA, description="low-rank adapters")
    launch: Launch = Field(default_factory=Launch, description="processes")

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> Self:
        with collecting() as problems:
            problems.add(*_of_adapters(self), *_of_dropout(self), *_of_schedule(self))
            if self.router_loss and not self.routes:
                allowed = f"0 for {self.word}: its trainer adds no such loss"
                problems.add(problem(f"{self.name}.router_loss", self.router_loss, allowed))
            if self.eval_data is not None and not self.evaluates:
                mend = "set held_out" if self.trains == "reward" else "its loss says nothing without the training"
                problems.add(problem(f"{self.name}.eval_data", self.eval_data.uri, f"nothing for {self.word}", mend))
        return self

    @abstractmethod
    def build(self, job: Job) -> Trainer:
        """The trainer of a job of this stage, ready to ``train()``.

        Raises:
            InputError: more than 1 % of the rows are too long, or what the algorithm itself needs is missing.
        """

    def check_here(self) -> None:
        """Refuse what cannot be had on this machine.

        Raises:
            InputError: a library or a device is missing.
        """

    def steps(self, rows: int) -> int:
        """Optimizer steps on so many rows of data."""
        if self.max_steps is not None:
            return self.max_steps
        batch = self.batch_size * self.gradient_accumulation * self.launch.world
        return max(1, math.ceil(self.epochs * self.steps_an_epoch(rows, batch)))  # to the last bit as the Trainer does

    def steps_an_epoch(self, rows: int, batch: int) -> int:
        """Optimizer steps of one pass over the data, in batches of all devices together."""
        # Rounded up: the Trainer keeps a last batch that is not full.
        return -(-rows // batch)

    def every(self, steps: int) -> int:
        """Steps between checkpoints: the stage's own number, or a tenth of the stage, at least 1."""
        # The one place that says so: whoever saves, measures, evaluates or foretells a checkpoint asks it.
        return self.checkpoint_every or max(1, steps // 10)

    def checkpoints(self, steps: int | None) -> int | None:
        """How many checkpoints a training of so many steps has; None where that is not known."""
        return math.ceil(steps / self.every(steps)) if steps else None

    @property
    def trained_turns(self) -> Turns:
        """Which answers of a dialogue the stage learns from, of those whose ``kind`` is sft."""
        return "last"

    @property
    def packs(self) -> bool:
        """Whether its trainer joins rows, so that how many steps they make is known when they are tokens."""
        return bool(self.trainer.get("packing")) and self.max_steps is None

    @property
    def word(self) -> str:
        """The short word by which runs are tagged with their algorithm."""
        return self.called or self.algorithm

    @property
    def sequences(self) -> int:
        """Sequences of one row that go through the model."""
        return 2 if self.kind == "pairs" else 1

    @property
    def rated_by(self) -> str | None:
        """What rates the responses that the stage samples: a stage or a URI; None where it samples none."""
        return None

    @property
    def sampled_length(self) -> int:
        """Longest response that the stage samples, in tokens; 0 where it samples none."""
        return 0

    @property
    def sampled_at_once(self) -> int:
        """Responses that the stage samples at once on each device; 0 where it samples none."""
        return 0

    @property
    def unattributable(self) -> str:
        """Why no influence of single rows can be had; empty where each row has a loss of its own."""
        if self.trains == "reward":
            return "a reward model has no stances"
        if self.trainer.get("packing"):
            return "packing joins rows, and none has a gradient of its own"
        return ""

    def trained_order(self, rows: int, seed: int) -> Sequence[int]:
        """Which of so many rows each row of the trainer is."""
        return range(rows)

    def load_anchors(self, moved: Collection[str], measured: Collection[Suite]) -> Suite | None:
        """The prompts on which the stage holds stances in place, None where it holds none.

        Args:
            moved: the topics that the stage's data names.
            measured: the suites that the stage is measured with.

        Raises:
            InputError: no anchors are left, or prompts of ``measured`` are among them.
        """
        return None

    def save_extra(self, trainer: Trainer, folder: Path) -> None:
        """Write what belongs to a checkpoint beside the model in ``folder``."""
        return

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The stage with the other stages that it refers to under their new names."""
        return self.model_copy(update={"start": names.get(self.start, self.start)})

    def parameters(self) -> dict[str, str]:
        """The settings as a run records them, flat: ``sft.learning_rate``, ``dpo-gap1.beta``."""
        return {f"{self.name}.{key}": value for key, value in self.plain().items()}

    def plain(self) -> dict[str, str]:
        """The same without the stage's name, so that the runs of two stages share them: ``learning_rate``, ``beta``."""
        dumped = self.model_dump(by_alias=True, exclude={"name"})
        # A URI alone is recorded as the text that the recipe has: a run that is resumed is compared by it.
        if self.data == Data(uri=self.data.uri):
            dumped["data"] = self.data.uri
        return flat(dumped)


_UNADAPTED = LoRA()


def _of_adapters(stage: Stage) -> list[str]:
    """Settings of adapters that a stage without adapters has."""
    keys = ("dropout", "use_dora", "rslora", "modules_to_save", "options")
    lora = {} if stage.lora.rank else stage.lora.model_dump(include=set(keys))
    mend = f"there are no adapters: set {stage.name}.lora.rank"
    return [
        problem(f"{stage.name}.lora.{key}", value, "nothing with lora.rank 0", mend)
        for key, value in lora.items()
        if value != getattr(_UNADAPTED, key)
    ]


def _of_dropout(stage: Stage) -> list[str]:
    """A dropout that the trainer would switch off without a word."""
    if not stage.lora.dropout or stage.drops_out or stage.trainer.get("disable_dropout") is False:
        return []
    allowed = f"0 for {stage.word}: it compares probabilities, which must not be drawn at random"
    anyway = f"to have it all the same set {stage.name}.trainer.disable_dropout: false"
    mend = "" if "disable_dropout" in stage.taken else anyway
    return [problem(f"{stage.name}.lora.dropout", stage.lora.dropout, allowed, mend)]


def _of_schedule(stage: Stage) -> list[str]:
    """A schedule without what it cannot do without."""
    # transformers raises for these only where it makes the schedule, long after the model is loaded.
    needed = {"cosine_with_min_lr": ("min_lr", "min_lr_rate"), "warmup_stable_decay": ("num_decay_steps",)}
    keys, given = needed.get(stage.schedule, ()), stage.trainer.get("lr_scheduler_kwargs")
    if not keys or (isinstance(given, dict) and any(key in given for key in keys)):
        return []
    mend = f"set {stage.name}.trainer.lr_scheduler_kwargs.{keys[0]}"
    return [problem(f"{stage.name}.schedule", stage.schedule, f"with {' or '.join(keys)}", mend)]


class Online(Stage):
    """Stages that sample from the policy while they train it."""

    kind = "prompts"
    has_reference = True
    flags = ("model", "data", "reward", "resume", "nodes", "rendezvous")

    reward: str = Field(
        description="what rates a response: an earlier `reward` stage, a model URI, or a function `module:function`"
    )
    response_length: int = Field(128, ge=1, description="longest sampled response in tokens")
    rollout_temperature: float = Field(1.0, gt=0, description="temperature of the sampled responses")

    @model_validator(mode="after")
    def _prompts_have_room(self) -> Self:
        if self.response_length >= self.max_length:
            allowed = f"less than max_length ({self.max_length}), which is for prompt and response together"
            raise InputError(problem(f"{self.name}.response_length", self.response_length, allowed))
        return self

    @property
    def unattributable(self) -> str:
        """Its rows are prompts alone."""
        return (
            "its rows are prompts: it learns from responses that it samples and from their rewards, which no run keeps"
        )

    @property
    def rated_by(self) -> str:
        """What rates the responses that the stage samples."""
        return self.reward

    @property
    def sampled_length(self) -> int:
        """Longest response that the stage samples, in tokens."""
        return self.response_length

    @property
    def sampled_at_once(self) -> int:
        """Responses that the stage samples at once on each device."""
        return self.batch_size

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The stage with the other stages that it refers to, its reward too, under their new names."""
        return super().renamed(names).model_copy(update={"reward": names.get(self.reward, self.reward)})


@dataclass(frozen=True)
class Job:
    """Everything a trainer is made from. The model is trained in place; a LoRA stage wraps it in new adapters."""

    stage: Stage
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    data: TrainingData
    folder: Path
    seed: int
    callbacks: Sequence[TrainerCallback] = ()
    reward: RewardFunction | None = None  # what rates responses, for stages that sample them
    anchors: Suite | None = None  # the prompts to hold in place, for stages that hold some
    speech: Speech = field(default_factory=Speech)  # how the model is made to answer, in rollouts as in measurements
    eval_data: TrainingData | None = None  # rows that are held out
