"""A reward model from preference pairs (TRL's RewardTrainer).

The start's weights get a head with one output, read at the last token, and the loss of one pair is that of Bradley and
Terry: -log sigmoid(r(x, y_c) - r(x, y_r)) (Ouyang et al. 2022, eq. 1). A share of the pairs is held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stages.job import common_arguments
from valuedrift_mlflow.stages.lengths import fit, refuse_if_many
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.start import start_folder

if TYPE_CHECKING:
    from valuedrift_mlflow.stages.reward_trainer import HeldOutTrainer


class Reward(Stage):
    """A reward model from preference pairs (Bradley-Terry; TRL's RewardTrainer)."""

    kind = "pairs"
    trains = "reward"
    purpose = "Train a reward model on preference pairs."
    about = "a reward model from preference pairs, its accuracy on held-out ones logged"
    example = '--data "embedded:pairs?gap=1&chosen=oppose&rejected=support" --set "reward.held_out=0.2"'

    configured_by = "trl:RewardConfig"
    flags = ("model", "data", "resume")  # one process trains it
    drops_out = False
    taken: ClassVar[Mapping[str, str]] = {
        "per_device_eval_batch_size": "set STAGE.batch_size",
    }
    algorithm: Literal["reward"]
    # InstructGPT (Ouyang et al. 2022, appendix C.2): 9e-6.
    learning_rate: float = Field(9e-6, gt=0, description="peak learning rate of AdamW")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the pairs kept for the accuracy that is logged")

    @model_validator(mode="after")
    def _is_trained_by_one_process(self) -> Self:
        for key in ("processes", "nodes"):
            if getattr(self.launch, key) > 1:
                raise InputError(problem(f"{self.name}.launch.{key}", getattr(self.launch, key), "1 for reward"))
        return self

    def steps_an_epoch(self, rows: int, batch: int) -> int:
        """Optimizer steps of one pass over the pairs that are not held out."""
        return super().steps_an_epoch(rows - self.kept_apart(rows), batch)

    def kept_apart(self, rows: int) -> int:
        """How many of so many pairs are held out."""
        return round(self.held_out * rows)

    def checkpoints(self, steps: int | None) -> int | None:
        """Its last one alone."""
        return 1

    def build(self, job: Job) -> HeldOutTrainer:
        """A trainer of a classifier made from the start's weights; it logs ``eval_accuracy`` at every checkpoint.

        Raises:
            InputError: ``held_out`` leaves no pair on one side, or more than 1 % of the rows are too long.
        """
        from trl import RewardConfig

        from valuedrift_mlflow.stages.reward_trainer import HeldOutTrainer

        adapters = self.lora.config()
        if adapters is not None:
            adapters.task_type = "SEQ_CLS"  # the new head is trained whole, beside the adapters
        rows = fit(job)
        held_out = self.kept_apart(len(rows))
        if not 0 < held_out < len(rows):
            found = f"{self.held_out} of {len(rows)} pairs"
            raise InputError(problem(f"{self.name}.held_out", found, "at least one pair to hold out and one to train"))
        # By the stage's seed: a training that is resumed must not find its held-out pairs among those it trains on.
        split = rows.train_test_split(test_size=held_out, seed=job.seed)
        arguments = RewardConfig(
            **common_arguments(job),
            per_device_eval_batch_size=self.batch_size,
            eval_strategy="steps",
            eval_steps=self.every(self.steps(len(rows))),
            # TRL loads the weights once more: in the precision and with the attention that the start has.
            model_init_kwargs={
                "dtype": str(job.model.dtype).removeprefix("torch."),
                "attn_implementation": job.model.config._attn_implementation,
            },
        )
        with start_folder(job) as folder:
            trainer = HeldOutTrainer(
                # TRL puts the new head on weights that it loads; the live model has a language model's.
                model=str(folder),
                args=arguments,
                train_dataset=split["train"],
                eval_dataset=split["test"],
                processing_class=job.tokenizer,
                peft_config=adapters,
                callbacks=list(job.callbacks),
            )
        # That folder is gone by now; a saved model must not name it as its origin, nor an adapter as its base.
        trainer.model.config.name_or_path = job.model.config.name_or_path
        if adapters is not None:
            trainer.model.peft_config["default"].base_model_name_or_path = job.model.config.name_or_path
        # The trainer leaves out rows that are too long without a word: a cut answer has no end to read the reward at.
        refuse_if_many(job, len(rows) - len(trainer.train_dataset) - len(trainer.eval_dataset), len(rows))
        return trainer
