"""TRL's experimental preference trainers on pairs that are token ids already (``tokens``)."""

from __future__ import annotations

from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from valuedrift_mlflow.inputs.rows import Record


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
