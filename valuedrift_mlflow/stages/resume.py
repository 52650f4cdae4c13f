"""Runs that were stopped: what they have done is kept, and they go on from their last checkpoint.

While a stage runs, a folder of its own holds the trainer's newest checkpoint (weights, optimizer, schedule, random
states) with the measurements up to it. A stage that is taken up continues the same MLflow run from there.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.sealed import damage, seal

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
_COMPLETE = "complete"  # the last file that is written into a checkpoint's folder


def state_folder(run_id: str) -> Path:
    """Where a run's checkpoint is kept until it is finished: ``.valuedrift/RUN_ID``, see ``tracking.states``."""
    return tracking.states() / run_id


def kept_model(run_id: str) -> Path:
    """Where the last weights of a stage lie for the stages after it, where none go to the store."""
    state = state_folder(run_id)
    return state.with_name(f"{state.name}-model")


def forget(folder: Path) -> None:
    """Delete what a finished run no longer needs."""
    # Whatever is left cannot be mended here, and the run has ended well without it.
    shutil.rmtree(folder, ignore_errors=True)
    # The folder is shared with other runs that may still be going.
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; a damaged one is named, and the one before it taken."""
    complete = sorted((path for path in _checkpoints(folder) if (path / _COMPLETE).is_file()), key=_step, reverse=True)
    for checkpoint in complete:
        found = damage(checkpoint, _COMPLETE)
        if not found:
            return checkpoint
        logger.warning("%s is damaged (%s): an earlier one is taken", checkpoint, found)
    if complete:
        logger.warning("no checkpoint in %s is whole: the training begins anew", folder)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    # Not what somebody has put beside them, such as a copy.
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]


def _step(checkpoint: Path) -> int:
    # A number, as in the order of texts 1000 comes before 200.
    return int(checkpoint.name.rpartition("-")[2])


def complete(checkpoint: Path) -> None:
    """Say that a checkpoint is written to its end, then delete the older ones beside it but for the last."""
    # In this order: a process killed in between leaves one more, never none.
    seal(checkpoint, _COMPLETE)
    older = [path for path in _checkpoints(checkpoint.parent) if _step(path) < _step(checkpoint)]
    whole = [path for path in older if (path / _COMPLETE).is_file()]
    for other in set(older) - {max(whole, key=_step, default=None)}:
        shutil.rmtree(other)


def take_up(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint of the same training where there is one."""
    if checkpoint:
        _count_on(trainer, checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _count_on(trainer: Trainer, checkpoint: Path) -> None:
    """Let a TRL trainer count its tokens on from the checkpoint; it would begin again at 0."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    counted = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    if counted and hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = counted[-1]
