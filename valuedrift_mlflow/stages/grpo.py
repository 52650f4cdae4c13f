"""Group relative policy optimisation (TRL's GRPOTrainer).

For each prompt a group of responses is sampled; the advantage of each is its reward minus the group's mean, divided by
the group's standard deviation, and every token of it gets the clipped policy gradient of PPO minus ``beta`` times an
estimate of the KL from the reference, the mean over its tokens, then over responses (Shao et al. 2024, eq. 3 and 4).
"""

from __future__ import annotations

from trl import GRPOConfig, GRPOTrainer

from valuedrift_mlflow.stages import Job, lora_config
from valuedrift_mlflow.stages.groups import ResumableGroups, group_arguments, reference_source, reward_function
from valuedrift_mlflow.stages.lengths import fit


class ResumableGRPOTrainer(ResumableGroups, GRPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


def build(job: Job) -> ResumableGRPOTrainer:
    """A trainer whose reference is the model that the stage starts from."""
    with reference_source(job):
        return ResumableGRPOTrainer(
            model=job.model,
            reward_funcs=reward_function(job),
            args=GRPOConfig(**group_arguments(job), loss_type="grpo"),  # TRL's default is DAPO's loss
            train_dataset=fit(job),
            processing_class=job.tokenizer,
            peft_config=lora_config(job.stage),
            callbacks=list(job.callbacks),
        )
