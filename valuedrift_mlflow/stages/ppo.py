"""Proximal policy optimisation against the stage's reward; the objective stands in ``ppo_trainer``.

The reference of the KL penalty is the model that the stage starts from, so the KL before the first step is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from valuedrift_mlflow.data.arrow_rows import BATCH, as_dataset, store
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.ppo_keys import Objective
from valuedrift_mlflow.stages.stage import Job

if TYPE_CHECKING:
    import datasets
    from transformers import Trainer

    from valuedrift_mlflow.stages.ppo_trainer import PPOTrainer


class PPO(Objective):
    """Proximal policy optimisation with a value head (Schulman et al. 2017; Ouyang et al. 2022)."""

    purpose = "Optimise a model against a reward by PPO."
    about = (
        "samples responses and trains against a reward model or a Python function `module:function`, with a value head"
    )
    example = '--data "embedded:pairs?size=500" --reward my_rewards:politeness --set "ppo.beta=0.1"'

    configured_by = "transformers:TrainingArguments"
    drops_out = False
    taken: ClassVar[Mapping[str, str]] = {
        "disable_dropout": "the ratio of policy and rollout must start at 1",
        "neftune_noise_alpha": "PPO has a trainer of its own, which does not have it",
        "label_smoothing_factor": "PPO has a trainer of its own, which does not have it",
        "use_liger_kernel": "PPO has a trainer of its own, which does not have it",
        "train_sampling_strategy": "PPO has a trainer of its own, which does not have it",
        "length_column_name": "PPO has a trainer of its own, which does not have it",
        "torch_compile": "PPO has a trainer of its own, which does not have it",
        "deepspeed": "PPO has a trainer of its own: split a model by STAGE.launch.sharded",
    }
    algorithm: Literal["ppo"]

    def steps_an_epoch(self, rows: int, batch: int) -> int:
        """Optimizer steps of one pass: every whole batch of responses is passed over ``ppo_epochs`` times."""
        # TRL's sampler leaves out a last batch that is not full.
        return rows // batch * self.ppo_epochs

    @property
    def sampled_at_once(self) -> int:
        """Responses of one rollout on each device."""
        return self.batch_size * self.gradient_accumulation

    def save_extra(self, trainer: Trainer, folder: Path) -> None:
        """Write the value head."""
        from valuedrift_mlflow.stages.ppo_trainer import PPOTrainer, save_value_head

        assert isinstance(trainer, PPOTrainer)
        save_value_head(trainer.model, folder)

    def build(self, job: Job) -> PPOTrainer:
        """A trainer that samples at most ``response_length`` tokens to each prompt of the data.

        Raises:
            InputError: more than 1 % of the prompts are too long, or there are fewer than one rollout takes.
        """
        from transformers import TrainingArguments

        from valuedrift_mlflow.stages.ppo_trainer import PPOTrainer

        assert job.reward is not None
        common = common_arguments(job)
        del common["max_length"]  # the prompts are fitted already, and the responses have a length of their own
        return PPOTrainer(
            model=job.model,
            args=TrainingArguments(**common, remove_unused_columns=False),  # prompts are no inputs of the model
            settings=self,
            reward=job.reward,
            speech=job.speech,
            train_dataset=_prompts(job),
            processing_class=job.tokenizer,
            peft_config=self.lora.config(),
            callbacks=list(job.callbacks),
        )


def _prompts(job: Job) -> datasets.Dataset:
    """The prompts as messages for the reward and as tokens for the policy, with one BOS where the model uses one."""
    return as_dataset(store(_tokenized(job)))


def _tokenized(job: Job) -> Iterator[Record]:
    plain = job.tokenizer.chat_template is None
    for batch in fit(job).iter(BATCH):
        texts = batch["prompt"]
        if not plain:
            texts = job.speech.prompts(job.tokenizer, texts)
        ids = job.tokenizer(texts, add_special_tokens=plain)["input_ids"]
        for asked, prompt_ids in zip(batch["asked"], ids, strict=True):
            yield {"prompt": asked, "prompt_ids": prompt_ids}
