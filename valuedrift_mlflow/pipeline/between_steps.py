"""Where a training is stopped: between two steps, with its state saved there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs import interrupts
from valuedrift_mlflow.inputs.interrupts import Stopped, Terminated
from valuedrift_mlflow.stages.together import anywhere

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class StopBetweenSteps(TrainerCallback):
    """Ends a training behind the step in which the process was told to stop.

    It stands before the callbacks that measure and save, which read of ``control`` what it has decided.
    """

    def __init__(self, *, saves: bool = True) -> None:
        """``saves``: the trainer's state can be saved and taken up."""
        self.saves = saves
        self._stop: Stopped | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the step come to its end."""
        interrupts.hold()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Have the state saved, and the training ended behind that.

        Raises:
            Stopped: there is nothing to save: it was the last step, or another process works on the run now.
        """
        tracking.check_owner()
        self._stop = interrupts.release()
        # The notice may have come to some processes of the training alone, or a step later.
        if not anywhere(self._stop is not None, args.device):
            return control
        self._stop = self._stop or Terminated("another process of this training was stopped")
        # A state behind the last step could not be taken up: the trainer would make one step more.
        if not self._stop.saves or not self.saves or state.global_step >= state.max_steps:
            raise self._stop
        control.should_save = control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop, once the state is saved: an epoch that is broken off ends right behind that.

        Raises:
            Stopped: the process was told to.
        """
        if self._stop is not None:
            raise self._stop
