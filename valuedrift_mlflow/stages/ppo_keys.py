"""The numbers of PPO's objective: what a recipe sets and its trainer computes with."""

from __future__ import annotations

from pydantic import Field

from valuedrift_mlflow.stages.stage import Online


class Objective(Online):
    """What ``ppo`` and ``ppo_trainer`` share; the formulas stand in ``ppo_math``."""

    # Huang et al. 2024 ("The N+ implementation details of RLHF with PPO"): rate 3e-6, beta 0.05, clip 0.2, gamma 1,
    # lambda 0.95, after Ouyang et al. 2022, appendix C.4.
    learning_rate: float = Field(3e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.05, ge=0, description="weight of the KL penalty of every token")
    clip_range: float = Field(0.2, gt=0, description="clip of the probability ratio")
    value_clip_range: float = Field(0.2, gt=0, description="clip of the value's change")
    value_weight: float = Field(0.1, ge=0, description="weight of the value loss")
    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of the generalised advantage estimate")
    ppo_epochs: int = Field(4, ge=1, description="passes over each batch of rollouts")
    whiten_advantages: bool = Field(True, description="scale advantages to mean 0 and variance 1 over the batch")
    whiten_rewards: bool = Field(False, description="scale rewards to variance 1 over the batch")
    missing_eos_penalty: float = Field(1.0, ge=0, description="taken from the reward of a response that does not end")
