"""A judge of one's own: a stance classifier trained on labelled answers, or on another judge's verdicts.

Distillation is the second way: a strong judge reads 2,000 answers, a small encoder learns to read as it does and reads
the next 200,000. What is trained is asked like any ``hf:`` judge, and knows when not to answer: its probabilities are
made to mean what they say by one temperature (Guo et al. 2017, arXiv 1706.04599), and below a threshold it leaves an
answer unscored. Both are fitted on propositions that it was not trained on, and it is measured on others again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation import responses as existing_responses
from valuedrift_mlflow.evaluation.judge_check import log_check
from valuedrift_mlflow.evaluation.results import JudgeCheck
from valuedrift_mlflow.inputs.errors import InputError, collecting, one_line, problem
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.inputs.strict import Strict
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.hf import PREFIX, HFJudge, maximum_length, premises, room_beside
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.models import auto
from valuedrift_mlflow.stances import LABELS, Answer, Label
from valuedrift_mlflow.statistics.agreement import judge_quality

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

Floats = NDArray[np.float64]
FEWEST = 20  # propositions: a fifth is kept for the threshold, a fifth for the check


class TrainingSettings(Strict):
    """How a judge is trained; the keyword arguments of ``train_judge``."""

    epochs: float = Field(4.0, gt=0, description="passes over the answers that are trained on")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of AdamW")
    batch_size: int = Field(16, ge=1, description="answers a step")
    max_length: int = Field(
        256,
        ge=32,
        description="tokens of a window in training (or what the encoder reads, if less); longer answers give several",
    )
    accuracy: float = Field(0.8, gt=0, lt=1, description="wanted of scored answers; what is less sure is unscored")
    seed: int = Field(0, ge=0, description="seed of the split and of the training")


@dataclass(frozen=True)
class Splits:
    """Answers by whole propositions: to train on, to fit temperature and threshold on, to check on."""

    train: list[Labelled]
    calibration: list[Labelled]
    held_out: list[Labelled]


@dataclass(frozen=True)
class TrainedJudge:
    """A trained judge: its URI for ``judge=``, what it reached on propositions it has not seen, and its run."""

    uri: str
    check: JudgeCheck
    temperature: float
    threshold: float
    run_id: str


@dataclass(frozen=True)
class PreparedTraining:
    """All that a training of a judge needs, checked."""

    model: str
    data: str
    teacher: Judge | None
    answers: list[Labelled]
    settings: TrainingSettings
    register: str


def train_judge(data: str, model: str, *, teacher: str = "", register: str = "", **settings: float) -> TrainedJudge:
    """Train a stance classifier and log it as a model, in a run of its own (nested where one is active).

    Args:
        data: labelled answers (see `labelled.load_answers`); with a teacher a table of responses, such as
            ``runs:/RUN_ID/responses.json``.
        model: the encoder to start from: a folder or a hub id.
        teacher: URI of the judge whose verdicts are the labels; those in the cache are not asked for again.
        register: name of the registered model that it becomes a version of; none where it is empty.
        settings: see `TrainingSettings`.

    Raises:
        InputError: before anything is trained: bad data, fewer than 20 propositions, no supporting or no opposing
            answers, an unknown model, teacher or setting, a name that no registered model can have.
    """
    return run_training(prepare(data, model, teacher=teacher, register=register, **settings))


def prepare(data: str, model: str, *, teacher: str = "", register: str = "", **settings: float) -> PreparedTraining:
    """Check what a training needs; a teacher is not asked yet.

    Raises:
        InputError: as ``train_judge``, every problem at once.
    """
    with collecting() as problems:
        checked = problems.attempt(_settings, settings)
        judge = problems.attempt(lambda: reader(judges.load(teacher))) if teacher else None
        answers = problems.attempt(_answers, data, bool(teacher))
        problems.attempt(_check_encoder, model)
        if register:
            problems.attempt(tracking.check_model_name, register, "register")
        if answers is not None:
            problems.add(*_too_few(answers, data, labels=not teacher))
    assert checked is not None and answers is not None  # what could not be had has been raised
    return PreparedTraining(model, data, judge, answers, checked, register)


def _settings(settings: dict[str, float]) -> TrainingSettings:
    try:
        return TrainingSettings(**settings)
    except ValidationError as error:
        known = ", ".join(TrainingSettings.model_fields)
        raise InputError(
            [
                problem(str(e["loc"][0]), e["input"], known if e["type"] == "extra_forbidden" else e["msg"])
                for e in error.errors()
            ]
        ) from None


def _answers(data: str, to_be_judged: bool) -> list[Labelled]:
    if not data:
        raise InputError(problem("data", data, "labelled answers, or with a teacher a table of responses"))
    if not to_be_judged:
        return labelled.load_answers(data)
    found = existing_responses.load_responses(data)
    return [
        # The label only keeps the place of the teacher's verdict (`_taught`).
        Labelled(Answer(item.proposition, item.prompt, text, item.polarity), Label.UNSCORED, item.topic, data)
        for said in found.by_step.values()
        for item, _, text in said
        if text.strip()
    ]


def _check_encoder(model: str) -> None:
    if not model:
        raise InputError(problem("model", model, "a folder or hub id of an encoder, such as roberta-base"))
    try:
        auto.config(auto.source(model))
    except (OSError, ValueError) as error:
        raise InputError(problem("model", model, "a folder or hub id of an encoder", one_line(error))) from None


def _too_few(answers: Sequence[Labelled], data: str, *, labels: bool) -> list[str]:
    problems = []
    propositions = len({entry.answer.proposition for entry in answers})
    if propositions < FEWEST:
        mend = "whole propositions are held out to fit the threshold and to check the judge"
        problems.append(problem(f"data {data}", f"{propositions} propositions", f"at least {FEWEST}", mend))
    counts = Counter(entry.label for entry in answers)
    problems += [
        problem(f"data {data}", f"no answer labelled {label.value}", "answers of both stances")
        for label in (Label.SUPPORT, Label.OPPOSE)
        if labels and not counts[label]
    ]
    return problems


def run_training(prepared: PreparedTraining) -> TrainedJudge:
    """Train, calibrate, check and log a judge that ``prepare`` has found good.

    Raises:
        InputError: the teacher found no supporting or no opposing answers.
    """
    settings = prepared.settings
    named = {"data": prepared.data, "model": prepared.model}
    if prepared.teacher is not None:
        named["teacher"] = identity(prepared.teacher)
    parameters = named | {key: str(value) for key, value in settings.model_dump().items()}
    short = Path(prepared.model).name
    with tracking.run("judge_training", name=f"train_judge · {short}", parameters=parameters) as active:
        answers = _taught(prepared)
        recorded.log_labelled(active, answers, prepared.data)
        parts = split(answers, settings.seed)
        with temporary_folder() as scratch:
            folder = Path(scratch) / "judge"
            fit(parts.train, prepared.model, folder, settings)
            temperature, threshold = calibrate(folder, parts.calibration, settings.accuracy)
            judge = HFJudge(str(folder))
            verdicts = judge.judge([entry.answer for entry in parts.held_out])
            # As in `check_judge`: intervals over propositions.
            groups = [entry.answer.proposition for entry in parts.held_out]
            quality = judge_quality([entry.label for entry in parts.held_out], verdicts, groups)
            # Not the judge's own name, which is that of a scratch folder.
            check = JudgeCheck(f"{short}@{judge.version}", parts.held_out, verdicts, quality, active.run_id)
            log_check(active, check)
            sizes = {name: float(len(getattr(parts, name))) for name in ("train", "calibration", "held_out")}
            tracking.log_metrics(
                active, {"judge/temperature": temperature, "judge/threshold": threshold} | _prefixed(sizes), 0
            )
            tracking.log_text(active, card(prepared, parts, check, temperature, threshold), "card.md")
            uri = tracking.log_classifier(active, folder, prepared.register)
    return TrainedJudge(f"{PREFIX}{uri}", check, temperature, threshold, active.run_id)


def _prefixed(sizes: dict[str, float]) -> dict[str, float]:
    return {f"judge/answers_{name}": size for name, size in sizes.items()}


def _taught(prepared: PreparedTraining) -> list[Labelled]:
    """The answers with their labels; with a teacher those that it could read, with its verdicts."""
    if prepared.teacher is None:
        return prepared.answers
    verdicts = prepared.teacher.judge([entry.answer for entry in prepared.answers])
    taught = [
        Labelled(entry.answer, verdict.label, entry.kind, entry.source)
        for entry, verdict in zip(prepared.answers, verdicts, strict=True)
        if not verdict.failed
    ]
    problems = _too_few(taught, prepared.data, labels=True)
    if problems:
        raise InputError(problems)
    return taught


def split(answers: Sequence[Labelled], seed: int = 0) -> Splits:
    """Three fifths of the propositions to train on, a fifth each to calibrate and to check on, drawn at random."""
    # Whole propositions: answers to one on both sides of a split would be told apart by its words alone.
    propositions = sorted({entry.answer.proposition for entry in answers})
    order = np.random.default_rng(seed).permutation(len(propositions))
    fifth = len(propositions) // 5
    place = {propositions[index]: min(rank // fifth, 2) for rank, index in enumerate(order.tolist())}
    parts: list[list[Labelled]] = [[], [], []]
    for entry in answers:
        parts[place[entry.answer.proposition]].append(entry)
    held_out, calibration, train = parts
    return Splits(train, calibration, held_out)


def fit(answers: Sequence[Labelled], model: str, folder: Path, settings: TrainingSettings) -> None:
    """Train a sequence classifier on labelled answers, as ``HFJudge`` will ask it, and save it with its tokenizer."""
    from transformers import set_seed

    present = {entry.label for entry in answers}
    # In the order of LABELS, so that the same labels give the same head; what nobody was given is no class.
    names = [label for label in LABELS if label in present]
    # Before the model is loaded, and not by the Trainer alone: the weights of a new head are drawn while it loads.
    set_seed(settings.seed)
    loaded, tokenizer = _encoder(model, names)
    longest = min(settings.max_length, maximum_length(loaded, tokenizer))
    pairs = [
        (window, entry.answer.proposition, names.index(entry.label))
        for entry in answers
        for window in premises(entry.answer, tokenizer, room_beside(tokenizer, longest, entry.answer.proposition))
    ]
    trainer = _trainer(loaded, tokenizer, pairs, longest, folder.parent / "trainer", settings)
    trainer.train()
    loaded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _encoder(model: str, names: Sequence[Label]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, revision = auto.named(auto.source(model))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **revision)
    loaded: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        source,
        **revision,
        trust_remote_code=False,
        num_labels=len(names),
        id2label={index: label.value for index, label in enumerate(names)},
        label2id={label.value: index for index, label in enumerate(names)},
        ignore_mismatched_sizes=True,  # a head for other labels is replaced
    )
    return loaded, tokenizer


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str, int]],
    longest: int,
    scratch: Path,
    settings: TrainingSettings,
) -> Trainer:
    import datasets
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    firsts, seconds, labels = (list(column) for column in zip(*pairs, strict=True))
    # Of a pair that is too long the answer is cut, never the proposition.
    encoded = tokenizer(firsts, seconds, truncation="only_first", max_length=longest)
    rows = datasets.Dataset.from_dict({**encoded, "labels": labels})
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,  # a share of the steps
        weight_decay=0.01,
        lr_scheduler_type="linear",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
    )
    return Trainer(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))


def calibrate(folder: Path, answers: Sequence[Labelled], accuracy: float) -> tuple[float, float]:
    """Fit temperature and threshold of a saved classifier on labelled answers, and write them into its configuration.

    The temperature minimises the log loss. The threshold is the lowest at which the scored answers are right as often
    as is wanted; where that cannot be had it is the one at which they are right most often, with a tenth scored.

    Returns:
        The temperature, above 0, and the threshold, in [0, 1].
    """
    from scipy.special import softmax

    judge = HFJudge(str(folder))
    names = list(judge.labels.values())
    kept = [entry for entry in answers if entry.label in names]
    # A probability of 0 has no logarithm; a constant for each row does not matter.
    logits = np.log(judge.class_probabilities([entry.answer for entry in kept]) + 1e-12)
    truth = np.array([names.index(entry.label) for entry in kept])
    temperature = temperature_for(logits, truth)
    probabilities = softmax(logits / temperature, axis=1)
    threshold = threshold_for(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth, accuracy)
    _write_rule(folder, temperature, threshold)
    return temperature, threshold


def temperature_for(logits: Floats, truth: NDArray[np.int64]) -> float:
    """The temperature from 1 to 20 with the smallest log loss (Guo et al. 2017, section 4.2).

    One under 1 would make a classifier surer than it was trained to be, on text that it has never seen.

    Args:
        logits: shape (n, labels), up to a constant for each row.
        truth: shape (n,), the place of the right label.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(truth))

    # Over the logarithm: to halve and to double are steps of one size.
    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(0.0, np.log(20.0)), method="bounded").x))


def threshold_for(confidence: Floats, right: NDArray[np.bool_], accuracy: float) -> float:
    """The lowest confidence from which on answers are right as often as is wanted; see ``calibrate``.

    >>> threshold_for(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False]), 0.8)
    0.8
    """
    # Stable: among equals the order of the answers decides, and the same data give the same threshold.
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    least = max(1, len(order) // 10)
    good = np.flatnonzero(shares >= accuracy)
    good = good[good >= least - 1]
    place = int(good[-1]) if good.size else least - 1 + int(np.argmax(shares[least - 1 :]))
    return float(confidence[order[place]])


def _write_rule(folder: Path, temperature: float, threshold: float) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # In the model's configuration: it goes wherever the weights go, and `HFJudge` reads it there.
    config["stance_judge"] = {"temperature": temperature, "threshold": threshold}
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def card(prepared: PreparedTraining, parts: Splits, check: JudgeCheck, temperature: float, threshold: float) -> str:
    """The card of a judge: what it is, from what it learned, what it reaches, and what it must not be used for."""
    quality = check.quality
    source = f"verdicts of {identity(prepared.teacher)}" if prepared.teacher is not None else "labels"
    figures = "\n".join(
        f"| {name.replace('_', ' ')} | {getattr(quality, name)} |"
        for name in ("coverage", "accuracy", "macro_f1", "kappa")
    )
    labels = Counter(entry.label.value for entry in parts.train)
    return f"""# A judge of stances

Fine-tuned from `{prepared.model}` on {source} of `{prepared.data}`: {len(parts.train):,} answers \
({", ".join(f"{count} {name}" for name, count in sorted(labels.items()))}).

On {len(parts.held_out):,} answers to propositions that it has not seen (95 % intervals over propositions):

| figure | value |
|---|---|
{figures}

Temperature {temperature:.2f} and threshold {threshold:.2f} were fitted on {len(parts.calibration):,} answers to other
propositions: an answer whose most probable label is less probable is unscored.

It has been checked on text of this kind only. Before it reads another kind, check it there: `check_judge`.
"""
