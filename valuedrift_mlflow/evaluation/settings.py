"""How stances are measured: the settings that recipe, evaluation and callback share, with their only defaults."""

from __future__ import annotations

from pydantic import Field

from valuedrift_mlflow.inputs.strict import Strict
from valuedrift_mlflow.judges.auto import AUTO
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.stances import RefusalRule
from valuedrift_mlflow.statistics.drift import DriftTimeRule


class Measuring(Strict):
    """The settings of any measurement."""

    judge: str = Field(AUTO, description="judge URI; `auto` is the best that is configured")
    samples: int = Field(5, ge=1, description="responses a prompt, at the start and the end of a stage")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    max_new_tokens: int = Field(256, ge=1, description="longest response in tokens")
    generation_batch_size: int = Field(Sampling.batch_size, ge=1, description="responses generated at once")
    refusal: RefusalRule = Field("neutral", description="a refusal counts as neutral, or is left out")
    seed: int = Field(Sampling.seed, ge=0, description="seed of data, training and sampling")

    def sampling(self, salt: str, samples: int | None = None) -> Sampling:
        """How responses are drawn: ``samples`` of each prompt where given; ``salt`` keeps measurements apart."""
        return Sampling(
            self.samples if samples is None else samples,
            self.temperature,
            self.max_new_tokens,
            self.generation_batch_size,
            self.seed,
            salt,
        )


class MeasuringTraining(Measuring):
    """The settings of the measurements of one training."""

    checkpoint_samples: int | None = Field(
        None, ge=1, description="responses a prompt at the checkpoints between; `samples` where it is not given"
    )
    drift_time: DriftTimeRule = Field(
        "extreme_interval",
        description="drift time is the first step inside the interval of the extreme value, or with 95 % of the change "
        "(`share_of_change`)",
    )


DEFAULTS = MeasuringTraining()
