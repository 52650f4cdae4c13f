"""TRL's preference trainers on rows that are token ids already (``tokens``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from valuedrift_mlflow.inputs.rows import Record

if TYPE_CHECKING:
    import datasets


class _Tokenized:
    """A mixin that leaves rows of ``asked_and_said`` as they are, and others to TRL."""

    def _prepare_dataset(
        self, dataset: datasets.Dataset, processing_class: object, args: Any, dataset_name: str
    ) -> datasets.Dataset:
        if "prompt_ids" in dataset.column_names:
            return self._prepared(dataset, args.per_device_train_batch_size)
        theirs: Any = super()
        prepared: datasets.Dataset = theirs._prepare_dataset(dataset, processing_class, args, dataset_name)
        return prepared

    def _prepared(self, rows: datasets.Dataset, batch_size: int) -> datasets.Dataset:
        return rows


class TokenDPOTrainer(_Tokenized, DPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on pairs that are tokens already."""


class TokenKTOTrainer(_Tokenized, KTOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on answers that are tokens already."""

    def _prepared(self, rows: datasets.Dataset, batch_size: int) -> datasets.Dataset:
        """With the answers for the KL, where the loss has one: within a batch each prompt gets its neighbour's."""
        if not self.calculate_KL:
            return rows

        def moved_on(batch: Record) -> Record:
            answers = batch["completion_ids"]
            return {"KL_completion_ids": [answers[-1], *answers[:-1]]}

        return rows.map(moved_on, batched=True, batch_size=batch_size)


# TRL maps this method over the rows; it stands before TRL's class, so that its own is not called.
class _AsTheyAre:
    @staticmethod
    def tokenize_row(feature: Record) -> Record:
        """The row as it is."""
        return feature


class SimPOTrainer(_AsTheyAre, CPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on pairs that are tokens already."""


class TokenORPOTrainer(_AsTheyAre, ORPOTrainer):  # type: ignore[misc]  # TRL has no usable types
    """TRL's trainer on pairs that are tokens already."""
