"""How stances are measured: the settings that recipe, evaluation and callback share, with their only defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.strict import Strict
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.models.engine import Backend, Engine
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.models.speech import RESERVED, Argument, Speech
from valuedrift_mlflow.stances import RefusalRule
from valuedrift_mlflow.statistics.drift import DriftTimeRule
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.statistics.verdicts import MARGIN


def _switch(value: object) -> object:
    """YAML reads a bare ``on`` and ``off`` as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _texts(value: object) -> object:
    """One text stands for a list of one."""
    return [value] if isinstance(value, str) and value else value


Thinking = Annotated[Literal["off", "on"], BeforeValidator(_switch)]


class Generation(Strict):
    """What generates the responses of models whose weights are here."""

    backend: Backend = Field(
        Engine.backend,
        description="what generates the responses of models whose weights are here: `transformers` is this package's "
        "own way, `continuous` transformers' continuous batching, `vllm` a vLLM server (`docs/performance.md`)",
    )
    server: str | None = Field(Engine.server, description="address of the vLLM server, such as http://127.0.0.1:8000")

    @model_validator(mode="after")
    def _fit_together(self) -> Generation:
        self.engine.check()
        return self

    @property
    def engine(self) -> Engine:
        """As models take it."""
        return Engine(self.backend, self.server)


class Measuring(Strict):
    """The settings of any measurement."""

    judge: str = Field(AUTO, description="judge URI; `auto` is the best that is configured")
    # Five responses a prompt, at 0.7 and of at most 256 tokens, as readers report of "Value Drifts" (arXiv 2510.26707).
    samples: int = Field(5, ge=1, description="responses a prompt, at the start and the end of a stage")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    max_new_tokens: int = Field(256, ge=1, description="longest answer in tokens")
    stop: Annotated[list[str], BeforeValidator(_texts)] = Field(
        default_factory=list,
        description="texts that end an answer, beside the model's own end tokens, where it is measured and where "
        "training samples it; they are no part of what is judged or rewarded",
    )
    thinking: Thinking = Field(
        "off", description="whether models whose chat template has a switch for it think before they answer (`on`)"
    )
    max_thinking_tokens: int = Field(
        Speech.max_thinking_tokens,
        ge=1,
        description="longest thought in tokens, beside those of the answer; a response that ends in its thought is "
        "unscored",
    )
    template_kwargs: dict[str, Argument] = Field(
        default_factory=dict, description="further arguments of the model's chat template, by their names"
    )
    # The classes that use them have these defaults; here they are only repeated by reference.
    generation_batch_size: int | None = Field(
        Sampling.batch_size,
        ge=1,
        description="responses generated at once; as many as there is memory for where it is not given",
    )
    generation: Generation = Field(default_factory=Generation, description="what generates")
    reuse_responses: bool = Field(
        True,
        description="whether what an unchanged model has said before, asked the same with the same seed and settings, "
        "is read from the user's cache folder and not sampled again",
    )
    refusal: RefusalRule = Field("neutral", description="a refusal counts as neutral, or is left out")
    interval: Interval = Field(
        "propositions",
        description="what intervals and tests speak of: propositions like the suite's, or these `prompts` alone",
    )
    margin: float = Field(
        MARGIN, gt=0, lt=1, description="the drift of a topic that is too small to matter: below it, it has not moved"
    )
    reference: str | None = Field(
        None,
        description="stances to measure the distance from: a file (`topic`, `proposition` or `item_id`; `support`, "
        "`neutral`, `oppose` as shares, percentages or counts; `n`), or `runs:/RUN_ID`",
    )
    seed: int = Field(Sampling.seed, ge=0, description="seed of data, training and sampling")

    @field_validator("stop")
    @classmethod
    def _stops_are_texts(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise InputError(problem("stop", stop, "texts of at least one letter"))
        return stop

    @field_validator("template_kwargs")
    @classmethod
    def _are_arguments(cls, given: dict[str, Argument]) -> dict[str, Argument]:
        wrong = [name for name in given if not name.isidentifier() or name in RESERVED]
        if wrong:
            allowed = f"names of a template's own arguments, none of {', '.join(RESERVED)}"
            raise InputError(problem("template_kwargs", ", ".join(wrong), allowed))
        return given

    @property
    def speech(self) -> Speech:
        """How models are made to speak."""
        return Speech(tuple(self.stop), self.thinking == "on", self.max_thinking_tokens, self.template_kwargs)

    def sampling(self, salt: str, samples: int | None = None) -> Sampling:
        """How responses are drawn: ``samples`` of each prompt where given; ``salt`` keeps measurements apart."""
        return Sampling(
            self.samples if samples is None else samples,
            self.temperature,
            self.max_new_tokens,
            self.generation_batch_size,
            self.seed,
            salt,
            self.speech,
            self.generation.engine,
        )


class MeasuringTraining(Measuring):
    """The settings of the measurements of one training."""

    checkpoint_samples: int | None = Field(
        None, ge=1, description="responses a prompt at the checkpoints between; `samples` where it is not given"
    )
    # Both readings of the paper's definition, by name: how its interval is computed is not known.
    drift_time: DriftTimeRule = Field(
        "extreme_interval",
        description="drift time is the first step inside the interval of the extreme value, or with 95 % of the change "
        "(`share_of_change`)",
    )


DEFAULTS = MeasuringTraining()


def speech_of(
    stop: Sequence[str], thinking: Thinking, max_thinking_tokens: int, template_kwargs: Mapping[str, Argument]
) -> Speech:
    """How models are made to speak, by arguments of Python.

    Raises:
        InputError: all that is out of range.
    """
    given = {
        # A text is left whole: as a sequence it would be its letters, each of which would end an answer.
        "stop": stop if isinstance(stop, str) else list(stop),
        "thinking": thinking,
        "max_thinking_tokens": max_thinking_tokens,
        "template_kwargs": dict(template_kwargs),
    }
    try:
        return Measuring.model_validate(given).speech
    except ValidationError as error:
        raise InputError(problems_of(error)) from None


def engine_of(generation: Mapping[str, str | None]) -> Engine:
    """What generates, by an argument of Python.

    Raises:
        InputError: an unknown backend or setting, a server that is none.
    """
    try:
        return Measuring.model_validate({"generation": dict(generation)}).generation.engine
    except ValidationError as error:
        raise InputError(problems_of(error)) from None


def problems_of(error: ValidationError, where: str = "", known: str = "") -> list[str]:
    """One line for each thing that is wrong with settings; ``where`` stands before their names, ``known`` are those."""
    lines: list[str] = []
    for entry in error.errors():
        # Under ctx pydantic hands on what a validator has raised.
        own = entry.get("ctx", {}).get("error")
        if isinstance(own, InputError):
            lines += own.problems
        else:
            allowed = known if entry["type"] == "extra_forbidden" else entry["msg"].removeprefix("Value error, ")
            # Of a group of settings the one that is wrong; else what is inside a setting has no name of its own.
            name = ".".join(map(str, entry["loc"][: 2 if entry["loc"][:1] == ("generation",) else 1]))
            lines.append(problem(f"{where}{name}", entry["input"], allowed))
    return lines
