"""Odds-ratio preference optimisation (TRL's ORPOTrainer).

Loss of one pair (Hong et al. 2024, eq. 6 and 7): the mean negative log-likelihood of prompt and chosen answer, minus
``beta`` (the authors' lambda) * log sigmoid(log(odds(y_c|x) / odds(y_r|x))), with odds(y|x) = p / (1 - p) and p the
geometric mean of the answer's token probabilities. As in the authors' code the likelihood counts the prompt's tokens
too. There is no reference.
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
    from valuedrift_mlflow.stages.token_trainers import TokenORPOTrainer


class ORPO(Stage):
    """Odds-ratio preference optimisation, without a reference (Hong et al. 2024; TRL's ORPOTrainer)."""

    kind = "pairs"
    purpose = "Optimise a model on preference pairs by ORPO."
    about = "odds-ratio preference optimisation, without a reference"
    example = '--data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "orpo.beta=0.5"'

    configured_by = "trl.experimental.orpo:ORPOConfig"
    drops_out = False
    evaluates = True
    taken: ClassVar[Mapping[str, str]] = {
        "beta": "set STAGE.beta",
    }
    algorithm: Literal["orpo"]
    # The authors: 8e-6, lambda 0.1 (Hong et al. 2024, appendix C).
    learning_rate: float = Field(8e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="weight of the odds-ratio term (the authors' lambda)")

    def build(self, job: Job) -> TokenORPOTrainer:
        """A trainer without a reference model."""
        from trl.experimental.orpo import ORPOConfig

        from valuedrift_mlflow.stages.router import without_router_loss
        from valuedrift_mlflow.stages.token_trainers import TokenORPOTrainer

        with without_router_loss(job.model):
            return TokenORPOTrainer(
                model=job.model,
                # Columns kept, as for SimPO: token ids of two sides are no arguments of the model's forward.
                args=ORPOConfig(**common_arguments(job), beta=self.beta, remove_unused_columns=False),
                train_dataset=tokenized_pairs(job),
                eval_dataset=None if job.eval_data is None else tokenized_pairs(replace(job, data=job.eval_data)),
                processing_class=job.tokenizer,
                peft_config=self.lora.config(),
                callbacks=list(job.callbacks),
            )
