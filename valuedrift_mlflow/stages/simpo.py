"""Simple preference optimisation (TRL's CPOTrainer with the SimPO loss and without CPO's likelihood term).

Loss of one pair (Meng et al. 2024, eq. 6): -log sigmoid(beta * (log pi(y_c|x) / |y_c| - log pi(y_r|x) / |y_r|) -
gamma), with gamma = ``gamma_beta_ratio`` * beta. There is no reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.tokens import tokenized_pairs

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.token_trainers import SimPOTrainer


class SimPO(Stage):
    """Simple preference optimisation, without a reference (Meng et al. 2024; TRL's CPOTrainer)."""

    kind = "pairs"
    purpose = "Optimise a model on preference pairs by SimPO."
    about = "simple preference optimisation, without a reference"
    example = '--data "embedded:pairs?gap=1&size=500" --set "simpo.gamma_beta_ratio=0.3"'

    configured_by = "trl.experimental.cpo:CPOConfig"
    drops_out = False
    evaluates = True
    taken: ClassVar[Mapping[str, str]] = {
        "beta": "set STAGE.beta",
        "loss_type": "another loss is another algorithm",
        "cpo_alpha": "another loss is another algorithm",
        "simpo_gamma": "set STAGE.gamma_beta_ratio",
    }
    algorithm: Literal["simpo"]
    # The authors trained with rates of 3e-7 to 1e-6, beta of 2.0 to 2.5 and gamma / beta of 0.1 to 0.8, and recommend
    # 0.5 to start from (README of their repository).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(2.0, gt=0, description="scale of the length-normalised reward")
    gamma_beta_ratio: float = Field(0.5, ge=0, description="target margin as a ratio to beta")

    def build(self, job: Job) -> SimPOTrainer:
        """A trainer without a reference model."""
        from trl.experimental.cpo import CPOConfig

        from valuedrift_mlflow.stages.router import without_router_loss
        from valuedrift_mlflow.stages.token_trainers import SimPOTrainer

        arguments = CPOConfig(
            **common_arguments(job),
            loss_type="simpo",
            cpo_alpha=0.0,  # TRL's default of 1 is another algorithm, CPO-SimPO
            beta=self.beta,
            # TRL's margin is absolute, the authors' one relative to beta.
            simpo_gamma=self.gamma_beta_ratio * self.beta,
            remove_unused_columns=False,  # the Trainer would drop columns that are no arguments of the model's forward
        )
        with without_router_loss(job.model):
            return SimPOTrainer(
                model=job.model,
                args=arguments,
                train_dataset=tokenized_pairs(job),
                eval_dataset=None if job.eval_data is None else tokenized_pairs(replace(job, data=job.eval_data)),
                processing_class=job.tokenizer,
                peft_config=self.lora.config(),
                callbacks=list(job.callbacks),
            )
