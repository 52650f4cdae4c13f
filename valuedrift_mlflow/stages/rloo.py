"""REINFORCE leave-one-out (TRL's RLOOTrainer).

For each prompt several responses are sampled; from the reward of each, less ``beta`` times its log-ratio to the
reference, the mean of the others is subtracted, and the whole response is one action (Ahmadian et al. 2024, eq. 8).
"""

from __future__ import annotations

from trl import RLOOConfig, RLOOTrainer

from valuedrift_mlflow.stages import Job, lora_config
from valuedrift_mlflow.stages.groups import ResumableGroups, group_arguments, reference_source, reward_function
from valuedrift_mlflow.stages.lengths import fit


class ResumableRLOOTrainer(ResumableGroups, RLOOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer, which goes on where it stopped."""


def build(job: Job) -> ResumableRLOOTrainer:
    """A trainer whose reference is the model that the stage starts from."""
    with reference_source(job):
        return ResumableRLOOTrainer(
            model=job.model,
            reward_funcs=reward_function(job),
            args=RLOOConfig(**group_arguments(job)),
            train_dataset=fit(job),
            processing_class=job.tokenizer,
            peft_config=lora_config(job.stage),
            callbacks=list(job.callbacks),
        )
