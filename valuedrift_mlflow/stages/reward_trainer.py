"""TRL's RewardTrainer with an exact accuracy on the pairs that are held out."""

from __future__ import annotations

from trl import RewardTrainer

from valuedrift_mlflow.models.generation import evaluation_mode


class HeldOutTrainer(RewardTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer with an exact ``eval_accuracy``: its own is a mean over batches, of which the last may be small."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the numbers on to the callbacks."""
        # By this TRL tells an evaluation from a step of training, too.
        if not self.model.training:
            accuracy = held_out_accuracy(self)
            # TRL logs the mean of the list, so a single entry stays exact.
            self._metrics["eval"]["accuracy"] = [accuracy]
        super().log(logs, start_time)


def held_out_accuracy(trainer: RewardTrainer) -> float:
    """Share of the held-out pairs whose chosen answer has the higher reward, in [0, 1]; a tie counts half."""
    right, pairs = 0.0, 0
    # Dropout off: it is asked before the training and after it, too, when nobody has set the mode.
    with evaluation_mode(trainer.model):
        for batch in trainer.get_eval_dataloader():
            # TRL collates all chosen answers of a batch first, then all rejected ones.
            chosen, rejected = trainer.model(**batch).logits.squeeze(-1).chunk(2)
            right += float((chosen > rejected).sum()) + 0.5 * float((chosen == rejected).sum())
            pairs += len(chosen)
    return right / pairs
