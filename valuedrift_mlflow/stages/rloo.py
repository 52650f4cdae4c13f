"""REINFORCE leave-one-out (TRL's RLOOTrainer).

For each prompt several responses are sampled; from the reward of each, less ``beta`` times its log-ratio to the
reference, the mean of the others is subtracted, and the whole response is one action (Ahmadian et al. 2024, eq. 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from valuedrift_mlflow.stages.groups import Groups
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.group_trainers import ResumableRLOOTrainer


class RLOO(Groups):
    """REINFORCE leave-one-out (Ahmadian et al. 2024; TRL's RLOOTrainer)."""

    purpose = "Optimise a model against a reward by RLOO."
    about = "the same by REINFORCE leave-one-out"
    example = '--data "embedded:pairs?size=500" --reward my_rewards:politeness --set "rloo.beta=0.1"'

    configured_by = "trl:RLOOConfig"
    algorithm: Literal["rloo"]
    # Ahmadian et al. 2024: 1e-6, k = 2 or 4; TRL: KL 0.05.
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.05, ge=0, description="weight of the KL from the reference")
    generations: int = Field(4, ge=2, description="responses sampled for each prompt; `batch_size` is a multiple of it")

    def build(self, job: Job) -> ResumableRLOOTrainer:
        """A trainer whose reference is the model that the stage starts from."""
        from trl import RLOOConfig

        from valuedrift_mlflow.stages.group_trainers import ResumableRLOOTrainer

        arguments = RLOOConfig(**self.arguments(job), beta=self.beta)
        return self.assembled(job, ResumableRLOOTrainer, arguments)
