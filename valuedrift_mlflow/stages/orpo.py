"""Odds-ratio preference optimisation (TRL's ORPOTrainer).

Loss of one pair (Hong et al. 2024, eq. 6 and 7): the mean negative log-likelihood of prompt and chosen answer, minus
``beta`` (the authors' lambda) * log sigmoid(log(odds(y_c|x) / odds(y_r|x))), with odds(y|x) = p / (1 - p) and p the
geometric mean of the answer's token probabilities. As in the authors' code the likelihood counts the prompt's tokens
too. There is no reference.
"""

from __future__ import annotations

from typing import Any

from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from valuedrift_mlflow.recipe import ORPO
from valuedrift_mlflow.stages import Job, common_arguments, lora_config
from valuedrift_mlflow.stages.tokens import tokenized_pairs


class TokenORPOTrainer(ORPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on pairs that are tokens already."""

    @staticmethod
    def tokenize_row(feature: dict[str, Any]) -> dict[str, Any]:
        """The row as it is."""
        return feature


def build(job: Job) -> TokenORPOTrainer:
    """A trainer without a reference model."""
    assert isinstance(job.stage, ORPO)
    return TokenORPOTrainer(
        model=job.model,
        args=ORPOConfig(**common_arguments(job), beta=job.stage.beta, remove_unused_columns=False),
        train_dataset=tokenized_pairs(job),
        processing_class=job.tokenizer,
        peft_config=lora_config(job.stage),
        callbacks=list(job.callbacks),
    )
