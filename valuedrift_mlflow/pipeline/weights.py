"""What of a stage's weights is kept, and where: by ``checkpoints.log`` all, the last ones, adapters, or none.

Every checkpoint is measured and has its LoggedModel. One whose weights are not logged has measurements there and no
files, and says for which setting. A stage whose weights do not go to the store leaves its last ones in a folder of this
machine until the job ends: later stages start from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.models.reloads import Reloads
from valuedrift_mlflow.pipeline import processes
from valuedrift_mlflow.pipeline.plan import StageRun
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages.resume import kept_model
from valuedrift_mlflow.stages.stage import BASE

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def logs_base(recipe: Recipe) -> bool:
    """Whether the model that a recipe starts from goes to the store: not where nothing but adapters does.

    Adapters need it there where no other machine could have it.
    """
    log = recipe.checkpoints.log
    return log in ("all", "final") or (log == "adapters" and only_here(recipe.base.model))


def only_here(uri: str) -> bool:
    """Whether a model is a folder of this machine, or one that this package makes.

    Another machine has no such folder, and who loads adapters may not have this package.
    """
    return uri in models.EMBEDDED or user_path(uri).is_dir()


def log_below(work: StageRun, loaded: Loaded) -> None:
    """Log what new adapters will lie on where no other machine could have it."""
    if not work.stage.lora.rank or work.stage.launch.sharded or not processes.is_first():
        return
    if not only_here(work.start_uri) or work.plan.recipe.checkpoints.log == "none":
        return
    answering = work.plan.answering(loaded.tokenizer)
    below = tracking.log_final_model(
        work.run, loaded.model, loaded.tokenizer, stage=f"{work.stage.name}-{BASE}", step=0, **answering
    )
    loaded.model.name_or_path = loaded.model.config.name_or_path = tracking.uri_of(work.run, below, 0)


def log_reward(work: StageRun, folder: Path, step: int) -> str:
    """Log a reward model that lies in a folder; gives what metrics name it by."""
    log = work.plan.recipe.checkpoints.log
    if log != "none":
        return tracking.log_checkpoint(work.run, folder, stage=work.stage.name, step=step)
    kept = kept_model(work.run.run_id)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    setting = f"checkpoints.log: {log}"
    return tracking.log_measured_checkpoint(work.run, stage=work.stage.name, step=step, setting=setting)


def reward_uri(work: StageRun, model: str, step: int) -> str:
    """How later stages load a reward model that was logged, once it is in the store."""
    kept = work.plan.recipe.checkpoints.log == "none"
    return str(kept_model(work.run.run_id)) if kept else tracking.uri_of(work.run, model, step)


class Checkpoints:
    """Saves the checkpoints of one training, compares them with the live model, and logs them."""

    def __init__(self, work: StageRun, scratch: Path) -> None:
        """Checkpoints of a stage, which lie in ``scratch`` until they are logged."""
        self._last: tuple[str, int] | Path | None = None  # what was logged last, by name and step, or is kept here
        self._work = work
        self._scratch = scratch
        self._reloads = Reloads(work.stage.name, work.plan.recipe.how)
        self._extra: Callable[[Path], None] = lambda folder: None

    def uri(self) -> str:
        """The last one that was logged, as later stages load it, once it is in the store; empty before any was."""
        if isinstance(self._last, tuple):
            return tracking.uri_of(self._work.run, *self._last)
        return str(self._last or "")

    def beside(self, trainer: Any) -> None:
        """Save what the stage has beside its model, too; the trainer is made after the callback that calls ``save``."""
        self._extra = partial(self._work.stage.save_extra, trainer)

    def save(self, model: Any, tokenizer: Any, step: int, last: bool) -> Callable[[], str]:
        """Save a checkpoint; gives what logs it, beside the training, and then what metrics name it by."""
        stage, first = self._work.stage, processes.is_first()
        log = self._work.plan.recipe.checkpoints.log
        if not last and log in ("final", "none"):
            return partial(self._log_measured, step) if first else str
        folder = self._scratch / f"step-{step:06d}"
        model.save_pretrained(folder, is_main_process=first)  # split weights need all processes
        if stage.launch.sharded:
            self._reloads.check_split(model, tokenizer, folder, here=first)
        if not first:
            return str
        if not stage.launch.sharded:
            self._reloads.check(model, tokenizer, folder)
        tokenizer.save_pretrained(folder)
        if stage.lora.rank:  # adapters have none of their own, and it says where answers end
            model.generation_config.save_pretrained(folder)
        self._extra(folder)
        model_id = ""
        if last and log == "none":
            self._keep(model, tokenizer, folder)
        elif last and log != "adapters":
            # Now: it needs the live model.
            model_id = self._log_last(model, tokenizer, folder, step)
        return partial(self._log, folder, tokenizer, step, model_id)

    def _log(self, folder: Path, tokenizer: Any, step: int, model_id: str) -> str:
        work = self._work
        if not model_id and work.plan.recipe.checkpoints.log == "none":
            model_id = self._log_measured(step)
        elif not model_id:
            answering = work.plan.answering(tokenizer)
            model_id = tracking.log_checkpoint(work.run, folder, stage=work.stage.name, step=step, answering=answering)
            self._last = (model_id, step)
        shutil.rmtree(folder)  # the run has a copy
        return model_id

    def _log_measured(self, step: int) -> str:
        setting = f"checkpoints.log: {self._work.plan.recipe.checkpoints.log}"
        return tracking.log_measured_checkpoint(self._work.run, stage=self._work.stage.name, step=step, setting=setting)

    def _keep(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """Leave the last weights, whole, where later stages find them."""
        kept = kept_model(self._work.run.run_id)
        shutil.rmtree(kept, ignore_errors=True)  # of a process that was killed here
        self._whole(model, folder).save_pretrained(kept)
        tokenizer.save_pretrained(kept)
        self._last = kept

    def _log_last(self, model: Any, tokenizer: Any, folder: Path, step: int) -> str:
        """Log a stage's last checkpoint: a model that loads and can be registered. Gives what metrics name it by."""
        run, stage, answering = self._work.run, self._work.stage, self._work.plan.answering(tokenizer)
        if not stage.lora.rank:
            model_id = tracking.log_last_checkpoint(run, folder, stage=stage.name, step=step, answering=answering)
        else:
            # Before adapters are merged in this folder: the checkpoint keeps what was trained, the model is what loads.
            tracking.log_checkpoint_files(run, folder, step=step, answering=answering, copied=False)
            whole = self._whole(model, folder)
            model_id = tracking.log_final_model(run, whole, tokenizer, stage=stage.name, step=step, **answering)
        self._last = (model_id, step)
        return model_id

    def _whole(self, model: Any, folder: Path) -> PreTrainedModel:
        """The stage's model with its adapters, which ``folder`` has, folded in; the live one stays as it is.

        Weights in 4 bits become what they stand for first: a merge would round them to 4 bits again, and the model that
        is logged would not be the one that was measured.
        """
        work = self._work
        if work.stage.launch.sharded:
            return processes.whole(work.stage, work.start_uri, folder, work.plan.recipe.stop, how=work.plan.recipe.how)
        if not getattr(model, "is_quantized", False) or not work.stage.lora.rank:
            return merged(model, copied=True)
        from peft import PeftModel

        below = models.load_model(work.start_uri, work.plan.recipe.how).model
        return merged(PeftModel.from_pretrained(models.dequantized(below), str(folder)))
