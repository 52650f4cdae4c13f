"""A reward model from preference pairs (TRL's RewardTrainer).

The start's weights get a head with one output, read at the last token, and the loss of one pair is that of Bradley and
Terry: -log sigmoid(r(x, y_c) - r(x, y_r)) (Ouyang et al. 2022, eq. 1). A share of the pairs is held out.
"""

from __future__ import annotations

from trl import RewardConfig, RewardTrainer

from valuedrift_mlflow.generation import evaluation_mode
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe import Reward
from valuedrift_mlflow.stages import Job, checkpoint_every, common_arguments, lora_config, total_steps
from valuedrift_mlflow.stages.lengths import fit, refuse_if_many
from valuedrift_mlflow.stages.start import start_folder


class HeldOutTrainer(RewardTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer with an exact ``eval_accuracy``: its own is a mean over batches, of which the last may be small."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the numbers on to the callbacks."""
        if not self.model.training:
            accuracy = held_out_accuracy(self)
            self._metrics["eval"]["accuracy"] = [accuracy]
        super().log(logs, start_time)


def build(job: Job) -> HeldOutTrainer:
    """A trainer of a classifier made from the start's weights; it logs ``eval_accuracy`` at every checkpoint.

    Raises:
        InputError: ``held_out`` leaves no pair on one side, or more than 1 % of the rows are too long.
    """
    assert isinstance(job.stage, Reward)
    adapters = lora_config(job.stage)
    if adapters is not None:
        adapters.task_type = "SEQ_CLS"  # the new head is trained whole, beside the adapters
    rows = fit(job)
    held_out = round(job.stage.held_out * len(rows))
    if not 0 < held_out < len(rows):
        found = f"{job.stage.held_out} of {len(rows)} pairs"
        raise InputError(problem(f"{job.stage.name}.held_out", found, "at least one pair to hold out and one to train"))
    split = rows.train_test_split(test_size=held_out, seed=job.seed)
    arguments = RewardConfig(
        **common_arguments(job),
        per_device_eval_batch_size=job.stage.batch_size,
        eval_strategy="steps",
        eval_steps=checkpoint_every(job.stage, total_steps(job.stage, len(split["train"]))),
        model_init_kwargs={"dtype": str(job.model.dtype).removeprefix("torch.")},
    )
    with start_folder(job) as folder:
        trainer = HeldOutTrainer(
            model=str(folder),
            args=arguments,
            train_dataset=split["train"],
            eval_dataset=split["test"],
            processing_class=job.tokenizer,
            peft_config=adapters,
            callbacks=list(job.callbacks),
        )
    trainer.model.config.name_or_path = job.model.config.name_or_path
    if adapters is not None:
        trainer.model.peft_config["default"].base_model_name_or_path = job.model.config.name_or_path
    # The trainer leaves out rows that are too long without a word: a cut answer has no end to read the reward at.
    refuse_if_many(job, len(rows) - len(trainer.train_dataset) - len(trainer.eval_dataset), len(rows))
    return trainer


def held_out_accuracy(trainer: RewardTrainer) -> float:
    """Share of the held-out pairs whose chosen answer has the higher reward, in [0, 1]; a tie counts half."""
    right, pairs = 0.0, 0
    with evaluation_mode(trainer.model):
        for batch in trainer.get_eval_dataloader():
            chosen, rejected = trainer.model(**batch).logits.squeeze(-1).chunk(2)
            right += float((chosen > rejected).sum()) + 0.5 * float((chosen == rejected).sum())
            pairs += len(chosen)
    return right / pairs
