"""An algorithm of your own: a class derived from ``Stage``, with its settings and what builds its trainer.

In the folder of this file (in a recipe of yours it is ``algorithm: own_algorithm:Smooth``):

    valuedrift main --recipe sft --set "sft.algorithm=own_algorithm:Smooth sft.name=smooth smooth.smoothing=0.2"
"""

from pydantic import Field
from trl import SFTConfig, SFTTrainer

from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit
from valuedrift_mlflow.stages.stage import Stage


class Smooth(Stage):
    """Supervised fine-tuning with label smoothing (Szegedy et al. 2016)."""

    kind = "sft"  # of the data: sft, pairs, labelled, prompts
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")
    smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target spread over all tokens")

    def build(self, job):
        own = {"completion_only_loss": True, "label_smoothing_factor": self.smoothing}
        data = {"train_dataset": fit(job), "processing_class": job.tokenizer, "callbacks": list(job.callbacks)}
        arguments = SFTConfig(**common_arguments(job), **own)
        return SFTTrainer(model=job.model, args=arguments, peft_config=self.lora.config(), **data)
