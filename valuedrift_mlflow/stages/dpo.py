"""Direct preference optimisation and its variants (TRL's DPOTrainer).

Loss of one pair (Rafailov et al. 2023, eq. 7): -log sigmoid(beta * ((log pi(y_c|x) - log ref(y_c|x)) - (log pi(y_r|x)
- log ref(y_r|x)))). The reference is the model that the stage starts from, so the loss before the first step is ln 2.
``loss_type`` names another loss of the same log-ratios, such as ipo (Azar et al. 2023, eq. 17), which starts at
1 / (4 beta^2).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.tokens import asked_and_said

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.token_trainers import TokenDPOTrainer


class DPO(Stage):
    """Direct preference optimisation (Rafailov et al. 2023; TRL's DPOTrainer)."""

    kind = "pairs"
    has_reference = True
    purpose = "Optimise a model on preference pairs."
    about = "direct preference optimisation; `dpo.loss_type` names variants (`ipo`, `robust`, `apo_zero`, ...)"
    example = '--data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "dpo.beta=0.2"'

    configured_by = "trl:DPOConfig"
    drops_out = False
    evaluates = True
    routes = True
    taken: ClassVar[Mapping[str, str]] = {
        "beta": "set STAGE.beta",
        "loss_type": "set STAGE.loss_type",
        "label_smoothing": "set STAGE.label_smoothing",
    }
    algorithm: Literal["dpo"]
    # The authors' setting: RMSprop at 1e-6 and beta 0.1 (Rafailov et al. 2023, appendix B).
    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference (inverse temperature)")
    loss_type: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "apo_zero",
        "apo_down",
    ] = Field("sigmoid", description="variant of the loss, by TRL's name")
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of the pairs taken to be labelled the wrong way; for `exo_pair`, `robust` and `aot`",
    )

    @model_validator(mode="after")
    def _smoothing_is_for_the_losses_that_have_it(self) -> Self:
        where = f"{self.name}.label_smoothing"
        # EXO takes the logarithm of it, and the robust loss without it is the sigmoid loss.
        if self.loss_type in ("exo_pair", "robust") and not self.label_smoothing:
            raise InputError(problem(where, 0.0, f"above 0 and below 0.5 with loss_type {self.loss_type}"))
        # TRL's other variants leave it out without a word.
        if self.loss_type not in ("exo_pair", "robust", "aot") and self.label_smoothing:
            mend = "choose exo_pair, robust or aot"
            raise InputError(problem(where, self.label_smoothing, f"0 with loss_type {self.loss_type}", mend))
        return self

    @property
    def unattributable(self) -> str:
        """One of its losses is of a batch as a whole."""
        if self.loss_type == "aot":
            return "loss_type aot sorts a batch, and no pair has a loss of its own"
        return super().unattributable

    def build(self, job: Job) -> TokenDPOTrainer:
        """A trainer whose reference is a frozen copy of the start, or with LoRA the model without its new adapters."""
        from trl import DPOConfig

        from valuedrift_mlflow.stages.token_trainers import TokenDPOTrainer

        adapters = self.lora.config()
        arguments = DPOConfig(
            **common_arguments(job),
            beta=self.beta,
            # A list, because TRL can add losses up; here it is one.
            loss_type=[self.loss_type],
            label_smoothing=self.label_smoothing,
        )
        return TokenDPOTrainer(
            model=job.model,
            # Without a copy TRL loads the start a second time, from where the config says it is.
            ref_model=None if adapters else copy.deepcopy(job.model),
            args=arguments,
            train_dataset=asked_and_said(job),
            eval_dataset=None if job.eval_data is None else asked_and_said(replace(job, data=job.eval_data)),
            processing_class=job.tokenizer,
            peft_config=adapters,
            callbacks=list(job.callbacks),
        )
