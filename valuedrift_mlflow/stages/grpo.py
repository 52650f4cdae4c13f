"""Group relative policy optimisation (TRL's GRPOTrainer).

For each prompt a group of responses is sampled; the advantage of each is its reward minus the group's mean, divided by
the group's standard deviation, and every token of it gets the clipped policy gradient of PPO minus ``beta`` times an
estimate of the KL from the reference, the mean over its tokens, then over responses (Shao et al. 2024, eq. 3 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.stages.groups import Groups
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.group_trainers import ResumableGRPOTrainer


class GRPO(Groups):
    """Group relative policy optimisation (Shao et al. 2024; TRL's GRPOTrainer)."""

    purpose = "Optimise a model against a reward by GRPO."
    about = "the same by group relative policy optimisation"
    example = '--data "embedded:pairs?size=500" --reward my_rewards:politeness --set "grpo.generations=4"'

    configured_by = "trl:GRPOConfig"
    taken: ClassVar[Mapping[str, str]] = {**Groups.taken, "loss_type": "it is GRPO's"}
    algorithm: Literal["grpo"]
    # Shao et al. 2024, section 4.2: 1e-6, KL 0.04, 64 samples; TRL's default of 8 samples is kept.
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.04, ge=0, description="weight of the KL from the reference")
    generations: int = Field(8, ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")

    def build(self, job: Job) -> ResumableGRPOTrainer:
        """A trainer whose reference is the model that the stage starts from."""
        from trl import GRPOConfig

        from valuedrift_mlflow.stages.group_trainers import ResumableGRPOTrainer

        arguments = GRPOConfig(**self.arguments(job), beta=self.beta, loss_type="grpo")  # TRL's default is DAPO's
        return self.assembled(job, ResumableGRPOTrainer, arguments)
