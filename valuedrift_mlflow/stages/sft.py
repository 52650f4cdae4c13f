"""Supervised fine-tuning: cross-entropy on the answers (TRL's SFTTrainer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from valuedrift_mlflow.data.settings import Turns
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.turns import dialogues

if TYPE_CHECKING:
    import datasets
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
        "chat_template_path": "rows are rendered as measurements ask: save the template with the model's tokenizer",
        "eos_token": "an answer ends as it is measured: set the recipe's stop",
    }
    algorithm: Literal["sft"]
    # TRL's default for full fine-tuning, after the Alpaca and Zephyr recipes.
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")
    assistant_only: bool = Field(
        True,
        description="train on what the assistant says alone; `false` trains on every token of a dialogue, as TRL does "
        "with `messages`",
    )
    turns: Turns = Field(
        "all",
        description="the answers of a dialogue that are trained: `all`, or the `last`; answers of weight 0 never are",
    )

    @property
    def trained_turns(self) -> Turns:
        """Which answers of a dialogue are trained."""
        return self.turns

    def build(self, job: Job) -> SFTTrainer:
        """A trainer whose loss is the mean negative log-likelihood of the answers' tokens, in nats."""
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=job.model,
            args=SFTConfig(**common_arguments(job), completion_only_loss=self.assistant_only),
            train_dataset=self._rows(job),
            eval_dataset=None if job.eval_data is None else self._rows(replace(job, data=job.eval_data)),
            processing_class=job.tokenizer,
            peft_config=self.lora.config(),
            callbacks=list(job.callbacks),
        )

    def _rows(self, job: Job) -> datasets.Dataset:
        return dialogues(job, answers_alone=self.assistant_only)
