"""The callback that measures a model's stances while it is trained, in this pipeline or in anybody's own script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from transformers import TrainerCallback

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import kept, recorded, reliability
from valuedrift_mlflow.evaluation.axis_metrics import AXIS_TABLE, axis_shifts, axis_table, metrics_of_axes
from valuedrift_mlflow.evaluation.measurement import Measurement, is_sharded, measure_together
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
from valuedrift_mlflow.evaluation.settings import DEFAULTS, Thinking, speech_of
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.judges import load as load_judge
from valuedrift_mlflow.judges.asking import reads_responses
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator, encode, evaluation_mode
from valuedrift_mlflow.models.reference import Reference as Start
from valuedrift_mlflow.models.reference import reference_kl, reference_of
from valuedrift_mlflow.models.speech import Argument, check_arguments
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.resume import complete
from valuedrift_mlflow.stances import RefusalRule
from valuedrift_mlflow.statistics.drift import Drift, DriftTimeRule
from valuedrift_mlflow.statistics.reference_distance import ReferenceDistance
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.suite import load as load_suite
from valuedrift_mlflow.tracking import LoggedDataset, OpenRun

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

# Saves a checkpoint (model, tokenizer, step, is it the last?) and returns the id of its LoggedModel.
SaveCheckpoint = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", int, bool], str]
_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
_KL_RESPONSES = 128  # responses that the KL from the stage's start is measured on


class ValueDriftCallback(TrainerCallback):
    """Measures stances before the first step and every few steps, and logs them to the active MLflow run.

    Add it to any ``transformers`` or TRL trainer of a causal language model::

        trainer = SFTTrainer(model, ..., callbacks=[ValueDriftCallback(suite="vaes", judge="lexical", every=100)])

    The live model generates; nothing is reloaded. Where no MLflow run is active, one is opened. At the end of the
    training the run also holds ``value_drift_table.json``, ``responses.json``, the drift times and ``figures/``.
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
        batch_size: int = DEFAULTS.generation_batch_size,
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
            batch_size: responses generated at once.
            refusal: whether a refusal counts as neutral or is left out.
            drift_time: rule of the drift times.
            interval: what intervals and tests speak of: ``propositions`` like the suite's, or these ``prompts``.
            margin: the drift of a topic that is too small to matter.
            kl: also measure the KL from the start (full fine-tuning then keeps a frozen copy of the start).
            seed: seed of the sampling, the intervals and the tests.
            stage: name that the figures show.
            reference: stances to measure the distance from, by URI or loaded.
            training_mix: the (support, neutral, oppose) shares of topics in the training data, where they are known.
            save_checkpoint: called before each later measurement; its LoggedModel gets the metrics.
            start: a measurement of the model that the training starts from; without one it is measured.
            run: the run to log to; the active one where it is not given.
            display: where to show progress.

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
        self.sampling = Sampling(samples, temperature, max_new_tokens, batch_size, seed, speech=speech)
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
        self._reference: Start | None = None
        self._first = True  # of the training's processes; only this one judges and logs
        self._measured = -1
        self._opened = False  # whether the run is this callback's own
        self._run: OpenRun  # both are set in the first process, where the training begins
        self._dataset: LoggedDataset

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the start as the reference of the KL; a resumed training has other weights when it begins.

        Raises:
            InputError: the chat template does not read an argument of ``template_kwargs``.
        """
        if self.sampling.speech.template and kwargs.get("processing_class") is not None:
            check_arguments(self.sampling.speech.template, kwargs["processing_class"])
        if self.kl and state.is_world_process_zero:
            self._reference = reference_of(kwargs["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model that the training starts from, or read what was measured before it was resumed.

        Raises:
            InputError: the training is resumed from a checkpoint that was saved without this callback.
        """
        # Anew: a script may train several times with one callback.
        self.measurements, self._measured = [], -1
        self._first = state.is_world_process_zero
        if self._first:
            self._open_run(args, state, kwargs["model"])
        if not state.global_step:
            self._measure(kwargs["model"], kwargs["processing_class"], 0, last=False)

    def _open_run(self, args: TrainingArguments, state: TrainerState, model: PreTrainedModel) -> None:
        begun: str | None = None
        if state.global_step:
            file = self._file(args, state)
            self.measurements, begun = kept.read_measurements(file, self.suite, self.refusal)
        # Added to a trainer that was there already: nobody has called `on_init_end`.
        elif self.kl and self._reference is None:
            self._reference = reference_of(model)
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
        """Measure where the step is one to measure at."""
        # As `Stage.every` has it, for scripts that have no stage.
        every = self.every or max(1, state.max_steps // 10)
        last = state.global_step >= state.max_steps
        if last or state.global_step % every == 0:
            self._measure(kwargs["model"], kwargs["processing_class"], state.global_step, last=last)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the measurements to the checkpoint that the trainer has saved."""
        if state.is_world_process_zero:
            kept.write_measurements(self._file(args, state), self.measurements, self._run.run_id)

    @staticmethod
    def _file(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / kept.MEASUREMENTS

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the drift times, the tables and the figures of the whole training."""
        if self._measured != state.global_step:  # stopped early
            self._measure(kwargs["model"], kwargs["processing_class"], state.global_step, last=True)
        if not self._first:
            return
        from valuedrift_mlflow.evaluation.notes import training_note
        from valuedrift_mlflow.report.axis_plots import axis_trajectories
        from valuedrift_mlflow.report.page import drawn
        from valuedrift_mlflow.report.plots import stage_figures

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
        # With full fine-tuning it is a second model in memory.
        self._reference = None
        if self.run is None:  # of a pipeline's stage more is known than here
            note = training_note(self._run.run_id, self.measurements, drift, self.trust)
            tracking.describe(self._run, note)
        if self._opened:  # the next training of the script has a run of its own
            tracking.close(self._run)

    def _distances(self, measurements: Sequence[Measurement]) -> ReferenceDistance:
        assert self.reference is not None
        return distances(self.reference, measurements, self.interval, self.sampling.seed)

    def drift(self, *, with_course: bool = True) -> Drift:
        """Drift of every measured step from the first; without its course it is told in half the time."""
        return analyse_measurements(
            self.measurements,
            self.sampling.seed,
            self.drift_time,
            interval=self.interval,
            margin=self.margin,
            with_course=with_course,
        )

    def _measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int, *, last: bool) -> None:
        model_id = None
        self._measured = step
        # Saved first: the metrics name its LoggedModel. Of split weights every process has to save its part.
        if self.save_checkpoint is not None and step > 0 and (self._first or is_sharded(model)):
            model_id = self.save_checkpoint(model, tokenizer, step, last)
        measurement = self.start if step == 0 and self.start else self._ask(model, tokenizer, step, last)
        if measurement is None or not self._first:
            return
        self.measurements.append(measurement)
        drift = self.drift(with_course=False)  # of all steps so far: they are one family of tests
        compared = self.measurements[:: max(1, len(self.measurements) - 1)]  # the first and this one
        metrics = metrics_of_axes(axis_shifts(compared, [one.step for one in compared], self.sampling.seed))
        metrics |= metrics_of(measurement, drift, mix=self.training_mix, costs=measurement is not self.start)
        if self.reference is not None:
            metrics |= distance_metrics(self._distances(compared), self.suite)
        if self._reference is not None:
            metrics["reference_kl"] = self._kl(model, tokenizer, measurement)
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

    def _ask(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int, last: bool
    ) -> Measurement | None:
        """The stances of the live model; None in the processes that do not judge."""
        samples = self.samples if last or step == 0 else self.checkpoint_samples
        sampling = replace(self.sampling, samples=samples, salt=f"{self.stage}/{step}")
        if self.display:
            self.display.start("responses", samples * len(self.suite.items), f"step {step}")
        return measure_together(
            TransformersGenerator(model, tokenizer),
            self.suite,
            self.judge,
            sampling,
            step=step,
            refusal=self.refusal,
            progress=lambda count: self.display.advance("responses", count) if self.display else None,
        )

    def _kl(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, measurement: Measurement) -> float:
        """KL from the start on one response a prompt, spread over the suite."""
        assert self._reference is not None
        single = [judged for judged in measurement.responses if judged.sample == 0]
        chosen = single[:: max(1, math.ceil(len(single) / _KL_RESPONSES))]
        speech = self.sampling.speech
        prompts = encode(tokenizer, [judged.item.prompt for judged in chosen], speech)
        # The mark of a thought that the template opens stands in the prompt already.
        opening = speech.opening(tokenizer).strip()
        exchanges = [(ids, judged.response.removeprefix(opening)) for ids, judged in zip(prompts, chosen, strict=True)]
        with evaluation_mode(model):
            return reference_kl(model, self._reference, tokenizer, exchanges)


class TrainingLog(TrainerCallback):
    """Logs the trainer's numbers as ``train/...``, moves the bar of steps, stops at a loss that is not finite."""

    def __init__(self, run: OpenRun | None, display: Display | None = None, name: str = "") -> None:
        """Log to this run; without one only move the bar."""
        self.run = run
        self.display = display
        self.name = name

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
        if self.run and state.is_world_process_zero and numbers:
            tracking.log_metrics(self.run, {f"train/{key}": value for key, value in numbers.items()}, state.global_step)


class KeepCheckpoint(TrainerCallback):
    """Makes the trainer write its own checkpoint every few steps, and keeps the newest one only.

    It stands after the callbacks that add files of theirs to the checkpoint. After the last step there is nothing to
    resume, so no checkpoint is written there.
    """

    def __init__(self, every: int) -> None:
        """Write a checkpoint every ``every`` steps."""
        self.every = every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint."""
        # `save_strategy` is "no": the Trainer saves where a callback tells it to, and nowhere else.
        control.should_save = state.global_step % self.every == 0 and state.global_step < state.max_steps
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as complete and delete the older ones."""
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # each process writes its own random state
        if state.is_world_process_zero:
            complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
