"""Group relative policy optimisation (TRL's GRPOTrainer).

For each prompt a group of responses is sampled; the advantage of each is its reward minus the group's mean, divided by
the group's standard deviation, and every token of it gets the clipped policy gradient of PPO minus ``beta`` times an
estimate of the KL from the reference, the mean over its tokens, then over responses (Shao et al. 2024, eq. 3 and 4).
"""

from __future__ import annotations

from trl import GRPOConfig, GRPOTrainer

from valuedrift_mlflow.stages import Job
from valuedrift_mlflow.stages.groups import ResumableGroups, build_groups, group_arguments


class ResumableGRPOTrainer(ResumableGroups, GRPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


def build(job: Job) -> ResumableGRPOTrainer:
    """A trainer whose reference is the model that the stage starts from."""
    arguments = GRPOConfig(**group_arguments(job), loss_type="grpo")  # TRL's default is DAPO's loss
    return build_groups(job, ResumableGRPOTrainer, arguments)
