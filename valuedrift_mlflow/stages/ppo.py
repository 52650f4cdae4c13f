"""Proximal policy optimisation against the stage's reward; the objective stands in ``valuedrift_mlflow.ppo``.

The reference of the KL penalty is the model that the stage starts from, so the KL before the first step is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.arrow_rows import BATCH, as_dataset, store
from valuedrift_mlflow.recipe import PPO
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.lengths import fit

if TYPE_CHECKING:
    import datasets

    from valuedrift_mlflow.ppo import PPOTrainer


def build(job: Job) -> PPOTrainer:
    """A trainer that samples at most ``response_length`` tokens to each prompt of the data.

    Raises:
        InputError: more than 1 % of the prompts are too long, or there are fewer than one rollout takes.
    """
    from valuedrift_mlflow.ppo import PPOConfig, PPOTrainer

    stage, reward = job.stage, job.reward
    assert isinstance(stage, PPO)
    assert reward is not None
    common = common_arguments(job)
    del common["max_length"]  # the prompts are fitted already, and the responses have a length of their own
    return PPOTrainer(
        model=job.model,
        args=PPOConfig(
            **common,
            response_length=stage.response_length,
            temperature=stage.rollout_temperature,
            beta=stage.beta,
            clip_range=stage.clip_range,
            value_clip_range=stage.value_clip_range,
            value_weight=stage.value_weight,
            gamma=stage.gamma,
            gae_lambda=stage.gae_lambda,
            ppo_epochs=stage.ppo_epochs,
            whiten_advantages=stage.whiten_advantages,
            whiten_rewards=stage.whiten_rewards,
            missing_eos_penalty=stage.missing_eos_penalty,
        ),
        reward=reward,
        train_dataset=_prompts(job),
        processing_class=job.tokenizer,
        peft_config=lora_config(stage),
        callbacks=list(job.callbacks),
    )


def _prompts(job: Job) -> datasets.Dataset:
    """The prompts as messages for the reward and as tokens for the policy, with one BOS where the model uses one."""
    return as_dataset(store(_tokenized(job)))


def _tokenized(job: Job) -> Iterator[dict[str, Any]]:
    plain = job.tokenizer.chat_template is None
    for batch in fit(job).iter(BATCH):
        texts: list[Any] = batch["prompt"]
        if not plain:
            texts = [job.tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in texts]
        ids = job.tokenizer(texts, add_special_tokens=plain)["input_ids"]
        for asked, prompt_ids in zip(batch["asked"], ids, strict=True):
            yield {"prompt": asked, "prompt_ids": prompt_ids}
