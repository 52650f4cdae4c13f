"""Kahneman-Tversky optimisation of answers labelled good or bad (TRL's KTOTrainer).

Loss of one answer (Ethayarajh et al. 2024, eq. 7): w * (1 - sigmoid(beta * s * (log pi(y|x) - log ref(y|x) - z))), with
s = 1 and w = ``desirable_weight`` for a good answer, s = -1 and w = ``undesirable_weight`` for a bad one, and z the KL
of policy and reference, estimated in each batch on prompts with the answers of other rows. The reference is the model
that the stage starts from, so the loss before the first step is half of the mean weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.tokens import asked_and_said

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.token_trainers import TokenKTOTrainer


class KTO(Stage):
    """Kahneman-Tversky optimisation of answers labelled good or bad (Ethayarajh et al. 2024; TRL's KTOTrainer)."""

    kind = "labelled"
    has_reference = True
    purpose = "Optimise a model on answers labelled good or bad."
    about = "Kahneman-Tversky optimisation on pairs or on `prompt`, `completion`, `label`"
    example = '--data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "kto.desirable_weight=1.3"'

    configured_by = "trl:KTOConfig"
    drops_out = False
    evaluates = True
    routes = True
    taken: ClassVar[Mapping[str, str]] = {
        "beta": "set STAGE.beta",
        "desirable_weight": "set STAGE.desirable_weight",
        "undesirable_weight": "set STAGE.undesirable_weight",
    }
    algorithm: Literal["kto"]
    # The authors: 5e-7 to 5e-6 and beta 0.1 (Ethayarajh et al. 2024, section 4.1 and the repository's README).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference")
    desirable_weight: float = Field(1.0, gt=0, description="weight of the losses of good answers")
    undesirable_weight: float = Field(1.0, gt=0, description="weight of the losses of bad answers")

    @model_validator(mode="after")
    def _answers_can_change_places(self) -> Self:
        if self.batch_size < 2:
            mend = "the KL is estimated on prompts with the answers of other rows of the batch"
            raise InputError(problem(f"{self.name}.batch_size", self.batch_size, "at least 2 for kto", mend))
        return self

    def trained_order(self, rows: int, seed: int) -> Sequence[int]:
        """The trainer's rows are shuffled."""
        import datasets

        order: list[int] = datasets.Dataset.from_dict({"row": range(rows)}).shuffle(seed=seed)["row"][:]
        return order

    def build(self, job: Job) -> TokenKTOTrainer:
        """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters."""
        from trl import KTOConfig

        from valuedrift_mlflow.stages.token_trainers import TokenKTOTrainer

        adapters = self.lora.config()
        arguments = KTOConfig(
            **common_arguments(job),
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        rows = None if job.eval_data is None else asked_and_said(replace(job, data=job.eval_data))
        # The trainer keeps the order of the rows and moves each answer on to the next prompt for the KL: the two sides
        # of a pair, one after the other, would give a prompt its own answer.
        return TokenKTOTrainer(
            model=job.model,
            # Without a copy TRL loads the start a second time, from where the config says it is.
            ref_model=None if adapters else copy.deepcopy(job.model),
            args=arguments,
            train_dataset=asked_and_said(job).shuffle(seed=job.seed),  # see `trained_order`
            eval_dataset=None if rows is None else rows.shuffle(seed=job.seed),
            processing_class=job.tokenizer,
            peft_config=adapters,
            callbacks=list(job.callbacks),
        )
