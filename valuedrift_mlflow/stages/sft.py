"""Supervised fine-tuning: cross-entropy on the answers (TRL's SFTTrainer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit, held_out
from valuedrift_mlflow.stages.stage import Job, Stage

if TYPE_CHECKING:
    from trl import SFTTrainer


class SFT(Stage):
    """Supervised fine-tuning on the responses of the data (TRL's SFTTrainer)."""

    kind = "sft"
    purpose = "Fine-tune a model on answers."
    about = "supervised fine-tuning of any model on any data"
    example = '--data "embedded:sft?support=0.7&neutral=0.2&oppose=0.1" --set "sft.max_steps=50"'

    configured_by = "trl:SFTConfig"
    evaluates = True
    routes = True
    taken: ClassVar[Mapping[str, str]] = {
        "completion_only_loss": "set STAGE.assistant_only",
        "assistant_only_loss": "set STAGE.assistant_only",
        "dataset_text_field": "rows are read by data.columns",
    }
    algorithm: Literal["sft"]
    # TRL's default for full fine-tuning, after the Alpaca and Zephyr recipes.
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")
    assistant_only: bool = Field(
        False,
        description="train on every turn of the assistant, by the chat template's generation marks, "
        "not on the last one alone",
    )

    def build(self, job: Job) -> SFTTrainer:
        """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
        from trl import SFTConfig, SFTTrainer

        if self.assistant_only:
            _refuse_unmarked(job)
        return SFTTrainer(
            model=job.model,
            args=SFTConfig(
                **common_arguments(job),
                completion_only_loss=not self.assistant_only,
                assistant_only_loss=self.assistant_only,
            ),
            train_dataset=fit(job),
            eval_dataset=held_out(job),
            processing_class=job.tokenizer,
            peft_config=self.lora.config(),
            callbacks=list(job.callbacks),
        )


def _refuse_unmarked(job: Job) -> None:
    """Refuse a chat template that does not mark what the assistant says.

    Raises:
        InputError: there is no template, or it has no generation marks and is none that TRL has a marked copy of.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = job.tokenizer.chat_template
    if template is not None and has_generation_markers(template):
        return
    where, allowed = f"{job.stage.name}.assistant_only", "false, or a chat template with {% generation %} marks"
    if template is None:
        raise InputError(problem(where, "a model without a chat template", allowed))
    try:
        get_training_chat_template(job.tokenizer)
    except ValueError:
        mend = "put them around what the assistant says in tokenizer.chat_template"
        raise InputError(problem(where, "a chat template without marks", allowed, mend)) from None
