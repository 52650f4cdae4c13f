"""REINFORCE leave-one-out (TRL's RLOOTrainer).

For each prompt several responses are sampled; from the reward of each, less ``beta`` times its log-ratio to the
reference, the mean of the others is subtracted, and the whole response is one action (Ahmadian et al. 2024, eq. 8).
"""

from __future__ import annotations

from trl import RLOOConfig, RLOOTrainer

from valuedrift_mlflow.stages import Job
from valuedrift_mlflow.stages.groups import ResumableGroups, build_groups, group_arguments


class ResumableRLOOTrainer(ResumableGroups, RLOOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


def build(job: Job) -> ResumableRLOOTrainer:
    """A trainer whose reference is the model that the stage starts from."""
    arguments = RLOOConfig(**group_arguments(job))
    return build_groups(job, ResumableRLOOTrainer, arguments)
