"""The callback that measures a model's stances while it is trained, in this pipeline or in anybody's own script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from transformers import TrainerCallback

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import kept, recorded, reliability
from valuedrift_mlflow.evaluation.axis_metrics import AXIS_TABLE, axis_shifts, axis_table, metrics_of_axes
from valuedrift_mlflow.evaluation.beside import Beside
from valuedrift_mlflow.evaluation.measurement import Measurement, Said, ask_together
from valuedrift_mlflow.evaluation.metrics import (
    analyse_measurements,
    drift_table,
    drift_time_metrics,
    responses_table,
)
from valuedrift_mlflow.evaluation.metrics import of as metrics_of
from valuedrift_mlflow.evaluation.nothing_scored import nothing_scored
from valuedrift_mlflow.evaluation.reference import (
    REFERENCE_TABLE,
    Reference,
    distance_figure,
    distance_metrics,
    distance_table,
    distances,
    load_reference,
)
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.evaluation.settings import DEFAULTS, Thinking, engine_of, speech_of
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges import load as load_judge
from valuedrift_mlflow.judges.asking import reads_responses
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.models.calling import is_sharded
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator, encode, evaluation_mode
from valuedrift_mlflow.models.speech import Argument, Speech, check_arguments
from valuedrift_mlflow.models.start import Start, reference_kl, start_of
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.resume import complete
from valuedrift_mlflow.stages.together import anywhere
from valuedrift_mlflow.stances import RefusalRule
from valuedrift_mlflow.statistics.drift import Drift, DriftTimeRule
from valuedrift_mlflow.statistics.family import Joined
from valuedrift_mlflow.statistics.reference_distance import ReferenceDistance
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.suite import load as load_suite
from valuedrift_mlflow.tracking import LoggedDataset, OpenRun

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

# Saves a checkpoint (model, tokenizer, step, is it the last?) and returns what logs it, which gives the id of its
# LoggedModel: that is called later, beside the training.
SaveCheckpoint = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", int, bool], Callable[[], str]]
_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
_KL_RESPONSES = 32  # responses that the KL from the stage's start is measured on, the same ones at every step


class ValueDriftCallback(TrainerCallback):
    """Measures stances before the first step and every few steps, and logs them to the active MLflow run.

    Add it to any ``transformers`` or TRL trainer of a causal language model::

        trainer = SFTTrainer(model, ..., callbacks=[ValueDriftCallback(suite="vaes", judge="lexical", every=100)])

    The live model generates; nothing is reloaded. While the next steps run, a thread judges, analyses and logs (so the
    judge is called in that thread; one that is ``portable`` in processes of its own). An error there stops the training
    at its next step or measurement. Where no MLflow run is active, one is opened. At the end of the training the run
    also holds ``value_drift_table.json``, ``responses.json``, the drift times and ``figures/``.
    Every checkpoint that the trainer saves holds the measurements up to it, so that a training that is resumed from
    one goes on in the same run and knows where it started. In a training of several processes each of them answers
    its part of the prompts, and the first one judges and logs.

    Attributes:
        measurements: one for each measured step, in order.
        trust: after the training, what the judge reaches on labelled texts; None where that is not known.
    """

    def __init__(
        self,
        suite: str | Suite = "vaes",
        judge: str | Judge = DEFAULTS.judge,
        *,
        every: int | None = None,
        samples: int = DEFAULTS.samples,
        checkpoint_samples: int | None = DEFAULTS.checkpoint_samples,
        temperature: float = DEFAULTS.temperature,
        max_new_tokens: int = DEFAULTS.max_new_tokens,
        stop: Sequence[str] = (),
        thinking: Thinking = DEFAULTS.thinking,
        max_thinking_tokens: int = DEFAULTS.max_thinking_tokens,
        template_kwargs: Mapping[str, Argument] | None = None,
        batch_size: int | None = DEFAULTS.generation_batch_size,
        generation: Mapping[str, str | None] | None = None,
        refusal: RefusalRule = DEFAULTS.refusal,
        drift_time: DriftTimeRule = DEFAULTS.drift_time,
        interval: Interval = DEFAULTS.interval,
        margin: float = DEFAULTS.margin,
        kl: bool = True,
        seed: int = DEFAULTS.seed,
        stage: str = "training",
        training_mix: Mapping[str, Sequence[float]] | None = None,
        reference: str | Reference | None = None,
        save_checkpoint: SaveCheckpoint | None = None,
        start: Measurement | None = None,
        run: OpenRun | None = None,
        display: Display | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Settings as in the recipe.

        Args:
            suite: a suite or its URI.
            judge: a judge or its URI.
            every: steps between measurements; a tenth of the training where it is not given.
            samples: responses a prompt at the first and the last step.
            checkpoint_samples: responses a prompt at the steps between; ``samples`` where it is not given.
            temperature: sampling temperature; 0 is greedy.
            max_new_tokens: longest answer in tokens.
            stop: texts that end an answer, beside the model's own end tokens.
            thinking: ``on`` lets a model think before it answers, where its chat template has a switch for that.
            max_thinking_tokens: longest thought in tokens, beside those of the answer.
            template_kwargs: further arguments of the chat template.
            batch_size: responses generated at once; as many as there is memory for where it is not given.
            generation: ``backend`` and ``server``, as in the recipe.
            refusal: whether a refusal counts as neutral or is left out.
            drift_time: rule of the drift times.
            interval: what intervals and tests speak of: ``propositions`` like the suite's, or these ``prompts``.
            margin: the drift of a topic that is too small to matter.
            kl: also measure the KL from the start, on responses of the start.
            seed: seed of the sampling, the intervals and the tests.
            stage: name that the figures show.
            reference: stances to measure the distance from, by URI or loaded.
            training_mix: the (support, neutral, oppose) shares of topics in the training data, where they are known.
            save_checkpoint: called before each later measurement; what it returns is called beside the training, logs
                the checkpoint and gives the id of its LoggedModel, which gets the metrics.
            start: a measurement of the model that the training starts from; without one it is measured.
            run: the run to log to; the active one where it is not given.
            display: where to show progress.
            beside: where the work beside the training is done, for whoever calls a trainer's checkpoint complete in
                the same order, and waits for it. Without it, saving a checkpoint waits for its measurement.

        Raises:
            InputError: an unknown suite, judge or ``interval``, ``every`` or a number of samples under 1, a ``margin``
                outside of 0 and 1.
        """
        for name, value in (("every", every), ("samples", samples), ("checkpoint_samples", checkpoint_samples)):
            if value is not None and value < 1:
                raise InputError(problem(name, value, "a whole number of at least 1"))
        if interval not in get_args(Interval):
            raise InputError(problem("interval", interval, " or ".join(get_args(Interval))))
        if not 0 < margin < 1:
            raise InputError(problem("margin", margin, "between 0 and 1"))
        self.suite = load_suite(suite) if isinstance(suite, str) else suite
        self.judge = load_judge(judge) if isinstance(judge, str) else judge
        self.every = every
        self.samples = samples
        self.checkpoint_samples = checkpoint_samples or samples
        speech = speech_of(stop, thinking, max_thinking_tokens, template_kwargs or {})
        engine = engine_of(generation or {})
        self.sampling = Sampling(samples, temperature, max_new_tokens, batch_size, seed, speech=speech, engine=engine)
        self.refusal: RefusalRule = refusal
        self.drift_time: DriftTimeRule = drift_time
        self.interval: Interval = interval
        self.margin = margin
        self.kl = kl and reads_responses(self.judge)  # it is measured on responses
        self.stage = stage
        self.training_mix = dict(training_mix or {})
        loaded = load_reference(reference, self.suite, refusal) if isinstance(reference, str) else reference
        self.reference = loaded
        self.save_checkpoint = save_checkpoint
        self.start = start and replace(start, step=0)  # it was the last step of the stage before
        self.run = run
        self.display = display
        self.measurements: list[Measurement] = []
        self.trust: Reliability | None = None
        self._shared = beside
        self._beside = beside or Beside()
        self._start: Start | None = None
        self._first = True  # of the training's processes; only this one judges and logs
        self._measured = -1
        self._judged = False  # whether the judge has been asked once
        self._opened = False  # whether the run is this callback's own
        self._run: OpenRun  # both are set in the first process, where the training begins
        self._dataset: LoggedDataset

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look whether the chat template can be told what it is to be told.

        Raises:
            InputError: the chat template does not read an argument of ``template_kwargs``.
        """
        if self.sampling.speech.template and kwargs.get("processing_class") is not None:
            check_arguments(self.sampling.speech.template, kwargs["processing_class"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model that the training starts from, or read what was measured before it was resumed.

        Raises:
            InputError: the training is resumed from a checkpoint that was saved without this callback.
        """
        # Anew: a script may train several times with one callback.
        self.measurements, self._measured, self._start = [], -1, None
        self._tested = Joined()  # of the measurements that were told
        self._table = kept.Table()
        self._beside = self._shared or Beside()
        self._first = state.is_world_process_zero
        if self._first:
            self._open_run(args, state, kwargs["model"])
        # A training that was told to stop has saved its state before it measured.
        due = state.global_step % self._between(state) == 0
        lacks = bool(self.measurements) and self.measurements[-1].step < state.global_step  # the first process knows
        if not state.global_step or (due and anywhere(lacks, args.device)):
            self._measure(kwargs["model"], kwargs["processing_class"], state.global_step, last=False)

    def _between(self, state: TrainerState) -> int:
        return self.every or max(1, state.max_steps // 10)  # as `Stage.every` has it, for scripts that have no stage

    def _open_run(self, args: TrainingArguments, state: TrainerState, model: PreTrainedModel) -> None:
        begun: str | None = None
        if state.global_step:
            file = self._file(args, state)
            self.measurements, begun = kept.read_measurements(file, self.suite, self.refusal)
            if self.kl:
                self._start = kept.read_start(file)
        self._opened = self.run is None and not tracking.is_open()
        self._run = self.run or tracking.adopt(begun, name=self._name(model), parameters=self._parameters())
        self._dataset = recorded.log_suite(self._run, self.suite)

    def _name(self, model: PreTrainedModel) -> str:
        named = Path(str(getattr(model, "name_or_path", ""))).name
        return " · ".join(filter(None, (self.stage, named)))

    def _parameters(self) -> dict[str, str]:
        """How the model is measured; by names that neither the trainer's settings nor a model's have."""
        samples = {"samples": self.samples, "checkpoint_samples": self.checkpoint_samples}
        sampling = {"sampling_temperature": self.sampling.temperature, "sampling_seed": self.sampling.seed}
        named = {"judge": identity(self.judge), "suite": self.suite.identity} | samples | sampling
        return {key: str(value) for key, value in named.items()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure where the step is one to measure at; raise what has gone wrong beside the training."""
        self._beside.check()
        last = state.global_step >= state.max_steps
        if control.should_training_stop and not last:
            return  # it is measured at the end of the training, or when the training goes on
        if last or state.global_step % self._between(state) == 0:
            self._measure(kwargs["model"], kwargs["processing_class"], state.global_step, last=last)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the measurements to the checkpoint that the trainer has saved."""
        if not state.is_world_process_zero:
            return
        self._beside.do(partial(self._write, self._file(args, state)))
        if self._shared is None:  # nobody says later that this checkpoint is complete
            self._beside.finish()

    def _write(self, file: Path) -> None:
        self._table.write(file, self.measurements, self._run.run_id, self._start)

    @staticmethod
    def _file(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / kept.MEASUREMENTS

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the drift times, the tables and the figures of the whole training."""
        if self._measured != state.global_step:  # stopped early
            self._measure(kwargs["model"], kwargs["processing_class"], state.global_step, last=True)
        self._beside.finish()
        if not self._first:
            return
        from valuedrift_mlflow.evaluation.notes import training_note
        from valuedrift_mlflow.report.axis_plots import axis_trajectories
        from valuedrift_mlflow.report.page import drawn
        from valuedrift_mlflow.report.plots import stage_figures

        self._tested = Joined()  # and what is kept for the next one goes
        drift = self.drift()
        tracking.log_metrics(self._run, drift_time_metrics(drift), state.global_step)
        tracking.log_table(self._run, drift_table(drift, self.measurements), "value_drift_table.json")
        tracking.log_table(self._run, responses_table(self.measurements), "responses.json")
        shifts = axis_shifts(self.measurements, drift.steps.tolist(), self.sampling.seed)
        tracking.log_table(self._run, axis_table(shifts, self.measurements[-1]), f"{AXIS_TABLE}.json")
        figures = {"axis_shifts": axis_trajectories(self.stage, shifts)} | stage_figures(self.stage, drift)
        if self.reference is not None:
            found, steps = self._distances(self.measurements), drift.steps.tolist()
            tracking.log_table(self._run, distance_table(found, self.suite, steps), f"{REFERENCE_TABLE}.json")
            figures["reference_distance"] = distance_figure(found, steps, self.reference.uri)
        tracking.log_figures(self._run, drawn(figures))
        # In the embedded world planted stances are the check, once for the whole pipeline.
        if not reliability.is_embedded_tokenizer(kwargs["processing_class"]):
            self.trust = reliability.of(self.judge, [judged.response for judged in self.measurements[-1].responses])
        if self.trust is not None:
            tracking.log_metrics(self._run, self.trust.metrics(), state.global_step)
            tracking.log_table(self._run, self.trust.table(), f"{reliability.TABLE}.json")
        self._start = None
        if self.run is None:  # of a pipeline's stage more is known than here
            note = training_note(self._run.run_id, self.measurements, drift, self.trust)
            tracking.describe(self._run, note)
        if self._opened:  # the next training of the script has a run of its own
            tracking.close(self._run)

    def _distances(self, measurements: Sequence[Measurement]) -> ReferenceDistance:
        assert self.reference is not None
        return distances(self.reference, measurements, self.interval, self.sampling.seed)

    def drift(self) -> Drift:
        """Drift of every measured step from the first."""
        return self._drift()

    def _drift(self, **options: Any) -> Drift:
        return analyse_measurements(
            self.measurements,
            self.sampling.seed,
            self.drift_time,
            interval=self.interval,
            margin=self.margin,
            **options,
        )

    def _measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int, *, last: bool) -> None:
        """Take of the live model what only it can give, and hand over the rest."""
        self._beside.finish()  # one measurement at a time is under way: its checkpoint and its texts are kept till then
        self._measured = step
        log_checkpoint = None
        # Saved first: the metrics name its LoggedModel. Of split weights every process has to save its part.
        if self.save_checkpoint is not None and step > 0 and (self._first or is_sharded(model)):
            log_checkpoint = self.save_checkpoint(model, tokenizer, step, last)
        taken = self.start if step == 0 and self.start else self._ask(model, tokenizer, step, last)
        if taken is None or not self._first:
            return
        # Of split weights the other processes would have to ask too.
        kl = self._kl(model, tokenizer, taken) if self.kl and not is_sharded(model) else None
        self._beside.do(partial(self._conclude, taken, step, kl, log_checkpoint))
        if isinstance(taken, Said) and not self._judged:
            # A judge may load a model for its first answer, which sets things of the whole process.
            self._judged = True
            self._beside.finish()

    def _conclude(
        self, taken: Measurement | Said, step: int, kl: float | None, log_checkpoint: Callable[[], str] | None
    ) -> None:
        """Log a checkpoint and what its measurement comes to; done beside the training."""
        model_id = log_checkpoint() if log_checkpoint else None
        measurement = taken.judged() if isinstance(taken, Said) else taken
        self.measurements.append(measurement)
        drift = self._drift(earlier=self._tested, with_course=False)  # of what was not told yet
        compared = self.measurements[:: max(1, len(self.measurements) - 1)]  # the first and this one
        metrics = metrics_of(measurement, drift, mix=self.training_mix, costs=measurement is not self.start)
        metrics |= metrics_of_axes(axis_shifts(compared, [one.step for one in compared], self.sampling.seed))
        if self.reference is not None:
            metrics |= distance_metrics(self._distances(compared), self.suite)
        if kl is not None:
            metrics["reference_kl"] = kl
        tracking.log_metrics(self._run, metrics, step, model_id=model_id, dataset=self._dataset)
        nothing = nothing_scored(measurement)
        if self.display and nothing:
            self.display.line(f"{self.stage} step {step}: {nothing}")
        elif self.display:
            support, neutral, oppose = drift.overall_probability[-1]
            self.display.line(
                f"{self.stage} step {step}: support {support:.2f}, neutral {neutral:.2f}, oppose {oppose:.2f}, "
                f"drift {drift.overall[-1]:.3f}, unscored {metrics['quality/unscored_rate']:.3f}"
            )

    def _ask(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int, last: bool) -> Said | None:
        """What the live model says; None in the processes that do not judge."""
        samples = self.samples if last or step == 0 else self.checkpoint_samples
        sampling = replace(self.sampling, samples=samples, salt=f"{self.stage}/{step}")
        if self.display:
            self.display.start("responses", samples * len(self.suite.items), f"step {step}")
        return ask_together(
            TransformersGenerator(model, tokenizer),
            self.suite,
            self.judge,
            sampling,
            step=step,
            refusal=self.refusal,
            progress=lambda count: self.display.advance("responses", count) if self.display else None,
        )

    def _kl(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, taken: Measurement | Said
    ) -> float | None:
        """KL from the start on its own responses: one a prompt, spread over the suite; None of an unknown start."""
        if self._start is None and taken.step > 0:
            return None
        with evaluation_mode(model):
            if self._start is None:
                self._start = start_of(model, _exchanges(taken, tokenizer, self.sampling.speech))
            return reference_kl(model, self._start)


def _exchanges(
    taken: Measurement | Said, tokenizer: PreTrainedTokenizerBase, speech: Speech
) -> list[tuple[list[int], list[int]]]:
    """Token ids of some prompts and of the first response to each."""
    single = taken.firsts()
    chosen = single[:: max(1, math.ceil(len(single) / _KL_RESPONSES))]
    prompts = encode(tokenizer, [item.prompt for item, _ in chosen], speech)
    # The mark of a thought that the template opens stands in the prompt already.
    opening = speech.opening(tokenizer).strip()
    texts = [text.removeprefix(opening) for _, text in chosen]
    return [
        (ids, list(tokenizer(text, add_special_tokens=False)["input_ids"]))
        for ids, text in zip(prompts, texts, strict=True)
    ]


class TrainingLog(TrainerCallback):
    """Logs the trainer's numbers as ``train/...``, moves the bar of steps, stops at a loss that is not finite."""

    def __init__(self, run: OpenRun | None, display: Display | None = None, name: str = "") -> None:
        """Log to this run; without one only move the bar."""
        self.run = run
        self.display = display
        self.name = name
        self._epoch_at = -1  # the step whose epoch is logged

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar."""
        if self.display:
            self.display.start("steps", state.max_steps, self.name)
            self.display.advance("steps", state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.display:
            self.display.advance("steps")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the numbers; refuse to go on with a loss that is NaN or infinite.

        Raises:
            FloatingPointError: the loss is not finite; the message has the step.
        """
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
        loss = numbers.get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {state.global_step}: lower the learning rate")
        if "train_runtime" in numbers:  # the trainer's summary repeats what the last step has logged
            numbers = {key.removeprefix("train_"): value for key, value in numbers.items() if key in _SUMMARY}
        if numbers.get("epoch") is not None and self._epoch_at == state.global_step:
            del numbers["epoch"]  # the trainer's evaluation and its summary say it once more
        elif "epoch" in numbers:
            self._epoch_at = state.global_step
        if self.run and state.is_world_process_zero and numbers:
            tracking.log_metrics(self.run, {f"train/{key}": value for key, value in numbers.items()}, state.global_step)


class KeepCheckpoint(TrainerCallback):
    """Makes the trainer write its own checkpoint every few steps, and keeps the newest one and the one before it.

    It stands after the callbacks that add files of theirs to the checkpoint. After the last step there is nothing to
    resume, so no checkpoint is written there.
    """

    def __init__(self, every: int, beside: Beside | None = None) -> None:
        """Write a checkpoint every ``every`` steps; its end is marked ``beside`` the training where that is given."""
        self.every = every
        self.beside = beside

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint."""
        # `save_strategy` is "no": the Trainer saves where a callback tells it to, and nowhere else.
        control.should_save |= state.global_step % self.every == 0 and state.global_step < state.max_steps
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as complete and delete the older ones."""
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # each process writes its own random state
        if not state.is_world_process_zero:
            return
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.beside is None:
            complete(checkpoint)
        else:  # in order: by then its measurement has been logged and written
            self.beside.do(partial(complete, checkpoint))
