"""From a stage, a model and its data to a trainer: what the algorithms share."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.trainer_settings import check_targets, precision

if TYPE_CHECKING:
    from transformers import Trainer

Arguments: TypeAlias = dict[str, Any]  # what the constructors of other libraries' settings take
PATIENCE = 24 * 3600  # seconds that other processes wait while the first one asks a slow judge


def build_trainer(job: Job) -> Trainer:
    """The trainer of a stage, ready to ``train()``."""
    from transformers import PrinterCallback

    from valuedrift_mlflow.stages.dropout import without_dropout
    from valuedrift_mlflow.stages.moved import MustMove
    from valuedrift_mlflow.stages.router import WithoutRouterLoss

    # Before `build`: the reference that it makes is a copy of this model.
    if job.stage.has_reference:
        without_dropout(job.model)
    check_targets(job.stage, job.model)
    trainer = job.stage.build(job)
    if job.stage.packs and job.eval_data is not None:
        trainer.args.eval_steps = job.stage.every(job.stage.steps(trained_rows(trainer)))
    # Here and not in `build`: it must be asked of a user's algorithm too.
    trainer.add_callback(MustMove(job.stage.name))
    trainer.callback_handler.callbacks.insert(0, WithoutRouterLoss())  # before those that log the loss
    # Without its bar (disable_tqdm) the Trainer prints every entry of its log instead.
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained_rows(trainer: Trainer) -> int:
    """The rows that a trainer goes through in a pass, packed ones as they are packed."""
    return len(cast("Sized", trainer.train_dataset))


def common_arguments(job: Job) -> Arguments:
    """The arguments that every TRL trainer shares."""
    import torch

    from valuedrift_mlflow.stages.router import router_weight

    stage = job.stage
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    # In this order: what the recipe lets a user set of the trainer's own comes last.
    return {
        "output_dir": str(job.folder),
        "max_steps": stage.max_steps or -1,  # -1: by epochs
        "num_train_epochs": stage.epochs,
        "per_device_train_batch_size": stage.batch_size,
        "gradient_accumulation_steps": stage.gradient_accumulation,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": stage.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": stage.weight_decay,
        "max_length": stage.max_length,
        "seed": job.seed,
        "logging_steps": 1,  # TrainingLog stops a training at the first loss that is not finite
        "logging_nan_inf_filter": False,  # an infinite loss must be seen, not averaged away
        "save_strategy": "no",  # checkpoints are saved and logged together with their measurement
        "report_to": "none",  # TrainingLog writes to the run; the Trainer's own callback would write it all again
        "disable_tqdm": True,
        "use_cpu": not accelerated,
        "activation_checkpointing": stage.gradient_checkpointing,
        "gradient_checkpointing": None,  # TRL's default of this older name would turn it on
        "dataloader_pin_memory": accelerated,  # without a device to copy to, torch warns of it
        "ddp_timeout": PATIENCE,
        **({"router_aux_loss_coef": router_weight(job)} if stage.routes else {}),
        **(_evaluation(stage, len(job.data.rows)) if job.eval_data is not None else {}),
        **precision(stage),
    }


def _evaluation(stage: Stage, rows: int) -> Arguments:
    """The loss on what is held out, before the first step and at every checkpoint."""
    return {
        "eval_strategy": "steps",
        "eval_steps": stage.every(stage.steps(rows)),
        "eval_on_start": True,
        "per_device_eval_batch_size": stage.batch_size,
        "prediction_loss_only": True,  # the logits of all rows together would fill the memory
    }
