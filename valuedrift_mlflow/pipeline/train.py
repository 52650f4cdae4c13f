"""The training of one stage whose run is open: every checkpoint is saved, logged and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.beside import Beside
from valuedrift_mlflow.evaluation.callback import KeepCheckpoint, SaveCheckpoint, TrainingLog, ValueDriftCallback
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.ending import align
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.pipeline import processes
from valuedrift_mlflow.pipeline.between_steps import StopBetweenSteps
from valuedrift_mlflow.pipeline.memory import end_stage
from valuedrift_mlflow.pipeline.plan import RewardResult, StageRun, Trained
from valuedrift_mlflow.pipeline.weights import Checkpoints, log_below, log_reward, reward_uri
from valuedrift_mlflow.report.display import Display, quiet_libraries
from valuedrift_mlflow.stages import rewards
from valuedrift_mlflow.stages.job import build_trainer, trained_rows
from valuedrift_mlflow.stages.resume import newest_checkpoint, take_up
from valuedrift_mlflow.stages.stage import Job

REWARD_ACCURACY = "reward/accuracy"


def load_start(work: StageRun) -> Loaded:
    """The model that a stage starts from, ready to be trained."""
    if work.stage.launch.sharded:
        return processes.load_sharded(work.stage, work.start_uri, work.plan.recipe.stop, how=work.plan.recipe.how)
    loaded = models.load_model(work.start_uri, work.plan.recipe.how)
    align(loaded.model, loaded.tokenizer, work.plan.recipe.stop)
    # What an adapter's config names as its base. PEFT reads the attribute, which of a merged model is what lies below
    # its adapter; the config's is what TRL reads.
    loaded.model.name_or_path = loaded.model.config.name_or_path = tracking.pinned(work.start_uri)
    if not work.stage.lora.rank:
        if getattr(loaded.model, "is_quantized", False):
            found, mend = f"{work.start_uri}: a quantized model", f"train adapters on it ({work.stage.name}.lora.rank)"
            raise InputError(problem(f"{work.stage.name} model", found, "weights that can be trained as a whole", mend))
        if work.plan.recipe.base.dtype == "auto":
            loaded.model.float()  # small updates of weights in 16 bits would be rounded away
    return loaded


def _log_start(work: StageRun) -> None:
    """Record what the stage starts from, and refuse another model than the run has recorded before."""
    if processes.is_first():
        based = work.start_uri == work.plan.recipe.base.model
        recorded.log_start(work.run, "model", "base.model" if based else f"{work.stage.name}.from", work.start_uri)
        if work.reward is not None:
            recorded.log_start(work.run, "reward", f"{work.stage.name}.reward", work.reward)


def train_stage(work: StageRun, display: Display) -> Trained:
    """Train and measure a stage from the newest checkpoint of its state, if it has one.

    In a training of several processes all call this.
    """
    trained = _train(work, display)
    end_stage()
    return trained


def _train(work: StageRun, display: Display) -> Trained:
    stage = work.stage
    quiet_libraries()
    # Left in this order: what is done beside the training needs the folder.
    with temporary_folder(tracking.scratch_of(work.run)) as scratch, Beside() as beside:
        loaded = load_start(work)
        _log_start(work)
        log_below(work, loaded)
        reward = (
            None
            if work.reward is None
            else rewards.load_reward(work.reward, f"{stage.name}.reward", work.plan.recipe.how)
        )
        checkpoints = Checkpoints(work, Path(scratch))
        callback, keep = _measuring(work, checkpoints.save, display, beside), KeepCheckpoint(work.every, beside)
        stopping = StopBetweenSteps(saves=not stage.launch.sharded)
        callbacks = [stopping, TrainingLog(work.run, display, stage.name), callback]
        if not stage.launch.sharded:  # the trainer cannot yet restore an optimizer that is split
            # Behind the others: what they add to a checkpoint must be there before it is called complete.
            callbacks.append(keep)
        anchors = work.plan.anchors[stage.name]
        job = Job(
            stage,
            loaded.model,
            loaded.tokenizer,
            work.data,
            work.state,
            work.seed,
            callbacks,
            reward,
            anchors,
            work.plan.recipe.speech,
            work.plan.held_out.get(stage.name),
        )
        trainer: Any = build_trainer(job)
        checkpoints.beside(trainer)
        if stage.packs:
            callback.every = keep.every = _every_packed(work, trained_rows(trainer), display)
        # Only the trainer knows how many there are; a launcher that has started one alone would say nothing.
        processes.check_processes(stage, trainer)
        take_up(trainer, processes.same_checkpoint(newest_checkpoint(work.state)))
        processes.check_equal_weights(trainer.model)
        return Trained(checkpoints.uri(), callback.measurements, callback.trust)


def _every_packed(work: StageRun, rows: int, display: Display) -> int:
    """Steps between checkpoints where rows are packed: how many steps there are is known when they have been."""
    stage = work.stage
    steps, every = stage.steps(rows), stage.every(stage.steps(rows))
    display.line(f"{stage.name}: {len(work.data.rows):,} rows packed into {rows:,}: {steps:,} steps")
    return every


def _measuring(work: StageRun, save: SaveCheckpoint, display: Display, beside: Beside) -> ValueDriftCallback:
    """The callback that measures every checkpoint by the recipe's settings."""
    plan, recipe = work.plan, work.plan.recipe
    return ValueDriftCallback(
        plan.suite,
        plan.judge,
        every=work.every,
        samples=recipe.samples,
        checkpoint_samples=recipe.checkpoint_samples,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        stop=recipe.stop,
        thinking=recipe.thinking,
        max_thinking_tokens=recipe.max_thinking_tokens,
        template_kwargs=recipe.template_kwargs,
        batch_size=recipe.generation_batch_size,
        generation=recipe.generation.model_dump(),
        refusal=recipe.refusal,
        drift_time=recipe.drift_time,
        interval=recipe.interval,
        margin=recipe.margin,
        kl=recipe.reference_kl and not work.stage.launch.sharded,
        seed=recipe.seed,
        stage=work.stage.name,
        # What was planted is known exactly; an audit's mix is what a judge has read.
        training_mix=work.data.stance_mix or work.mix,
        reference=plan.reference,
        save_checkpoint=save,
        start=work.given,
        run=work.run,
        display=display,
        beside=beside,
    )


def train_reward(work: StageRun, display: Display) -> RewardResult:
    """Train a reward model: its accuracy before and after, the classifier as checkpoint and model."""
    from valuedrift_mlflow.stages.reward_trainer import held_out_accuracy

    stage, run = work.stage, work.run
    with temporary_folder(tracking.scratch_of(run)) as scratch:
        loaded = load_start(work)
        _log_start(work)
        callbacks = [StopBetweenSteps(), TrainingLog(run, display, stage.name), KeepCheckpoint(work.every)]
        job = Job(stage, loaded.model, loaded.tokenizer, work.data, work.state, work.seed, callbacks)
        trainer: Any = build_trainer(job)
        checkpoint = newest_checkpoint(work.state)
        # A training that goes on has logged its accuracy at step 0 before.
        if checkpoint is None:
            tracking.log_metrics(run, {REWARD_ACCURACY: held_out_accuracy(trainer)}, 0)
        take_up(trainer, checkpoint)
        step, accuracy = trainer.state.global_step, held_out_accuracy(trainer)
        folder = Path(scratch) / "classifier"
        merged(trainer.model).save_pretrained(folder)  # whole: what is under its adapters is another kind of model
        loaded.tokenizer.save_pretrained(folder)
        model_id = log_reward(work, folder, step)
        tracking.log_metrics(run, {REWARD_ACCURACY: accuracy}, step, model_id=model_id)
        display.line(f"{stage.name} step {step}: accuracy {accuracy:.3f} on held-out pairs")
        return RewardResult(stage.name, run.run_id, reward_uri(work, model_id, step), accuracy)
