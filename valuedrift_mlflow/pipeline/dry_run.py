"""Dry runs: what a recipe would do, from everything that can be read without weights. Nothing is computed or logged.

Steps and rows are exact where the data can be read; data on the hub is not read. Tokens, bytes and memory are
estimates. The memory of one device, in bytes, with P parameters of which A are trained, n tokens in a batch (rows x
sequences of a row x ``max_length``), h hidden and m intermediate size, l layers, V entries of the vocabulary:

- weights: 4 P where all are trained (kept in 32 bits), else P in the width they are loaded in, and 4 A for adapters;
- gradients 4 A, AdamW's two moments 8 A; where all are trained also 2 P for the 16-bit copies that autocast makes;
- with ``base.dtype: bfloat16``, where all are trained, half of these, and no copies of autocast;
- frozen copies: the weights once for the loss of DPO, anchored DPO, KTO, PPO, GRPO and RLOO (none with LoRA: the
  adapters are switched off instead), and a reward model;
- activations: what a layer keeps for the backward pass in 16 bits, 2 n (8 h + 4 m) (attention that does not keep its
  scores; for m = 8/3 h it is 37 n h, next to the 34 n h of Korthikanti et al. 2022, table 2), for all layers, or with
  ``gradient_checkpointing`` for one layer and 2 n h l for the layers' inputs;
- logits: 10 n V (16 bits, a copy in 32 bits, its gradient);
- or, where that is more, the keys and values of the responses that are generated at once.

Sharding divides weights, gradients, moments and frozen copies by the number of processes. What the libraries add, and
fragments, are not in it: leave a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets, sources
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.evaluation.certainty import expected_line
from valuedrift_mlflow.inputs.errors import collecting, naming
from valuedrift_mlflow.inputs.modules import NotImported, only_looked_up
from valuedrift_mlflow.models import files
from valuedrift_mlflow.models.ending import known_ends, stop_token
from valuedrift_mlflow.pipeline.model_size import Model, model_of
from valuedrift_mlflow.pipeline.plan import Plan, data_field, data_lines, prepare, stage_data
from valuedrift_mlflow.pipeline.weights import logs_base, only_here
from valuedrift_mlflow.recipe.recipe import Base, Recipe
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.stage import BASE, Job, Stage

if TYPE_CHECKING:
    from valuedrift_mlflow.suite import Suite

HUB = "not checked: hub"
OWN = "not read: format of your own"
SAMPLED_ROWS = 500  # whose tokens are counted
PACKED_ROWS = 20_000  # that are tokenized to count how many are left where they are packed
CHARACTERS = 4  # of a token, where no tokenizer is at hand


def read(stage: Stage, base: str) -> TrainingData:
    """A stage's data as its training reads it; of data on the hub no row.

    Raises:
        InputError: as ``datasets.load_data``.
    """
    try:
        return _read(stage, base)
    except NotImported:  # a format of the user's own
        return TrainingData(stage.data.uri, stage.kind, OWN, [])


def _read(stage: Stage, base: str) -> TrainingData:
    data, second = stage.data, stage.data.mixed_in
    if all(sources.is_local(one) for one in (data, second) if one is not None):
        return stage_data(stage, base, local=True)
    field = data_field(stage)
    datasets.check_data(data, field)
    first = None
    with collecting() as problems:  # what can be read is, though the other part of a mixture cannot
        if sources.is_local(data):
            alone = data.model_copy(update={"mixed_in": None, "mixed_share": None})
            first = problems.attempt(stage_data, stage.model_copy(update={"data": alone}), base, local=True)
        if second is not None and sources.is_local(second):
            with naming(f"{field}.mixed_in"):
                stage_data(stage.model_copy(update={"data": second}), base, local=True)
    if first is None:
        return TrainingData(data.uri, stage.kind, HUB, [])
    return replace(first, mixed=f"{datasets.said_of_mixture(data)} ({HUB})")


# A stage -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StagePlan:
    """What one stage would do. None: it cannot be known without what the notes name."""

    stage: Stage
    format: str
    rows: int | None
    steps: int | None
    tokens: int | None
    tokens_from: str
    checkpoints: int | None
    disk: float | None  # bytes of the weights that are logged
    memory: dict[str, float] | None  # bytes on each device, by what they are for
    packing: str = ""  # what is known of rows that are packed

    @property
    def devices(self) -> int:
        """Processes, one on each device."""
        return self.stage.launch.world

    @property
    def peak(self) -> float | None:
        """Bytes of memory on each device."""
        return sum(self.memory.values()) if self.memory else None


@dataclass(frozen=True)
class DryRun:
    """What a recipe would do."""

    plan: Plan
    model: Model | None
    stages: list[StagePlan]


def dry_run(recipe: Recipe, source: str) -> DryRun:
    """Check a recipe and estimate every stage.

    Raises:
        InputError: all problems at once, as ``plan.prepare``; ``base.config`` is none.
    """
    with only_looked_up():
        plan = prepare(recipe, source, read)
    model = model_of(plan.recipe)
    widths: dict[str, float] = {BASE: model.bytes_each if model else 0}
    stages = []
    trained: dict[str, int] = {}  # parameters, by the settings that they depend on
    for stage in plan.recipe.stages:
        widths[stage.name] = widths[stage.start] if stage.lora.rank else _whole_width(recipe)
        key = stage.lora.model_dump_json()
        if model and key not in trained:
            trained[key] = model.adapters(stage) if stage.lora.rank else model.parameters
        stages.append(_stage_plan(plan, stage, model, trained.get(key, 0), widths))
    return DryRun(plan, model, stages)


def _whole_width(recipe: Recipe) -> int:
    """Bytes of a weight where all are trained."""
    return 2 if recipe.base.dtype == "bfloat16" else 4


def _stage_plan(plan: Plan, stage: Stage, model: Model | None, trained: int, widths: Mapping[str, float]) -> StagePlan:
    data = plan.data[stage.name]
    rows = len(data.rows) or stage.data.rows
    packed, packing = _packed(plan, stage, data, model)
    steps = stage.steps(packed or rows or 0) if rows or stage.max_steps else None
    checkpoints = stage.checkpoints(steps)
    tokens, tokens_from = _tokens(plan.recipe, stage, data, steps, len(data.rows) / packed if packed else 1)
    disk = memory = None
    if model:
        memory = _memory(plan, stage, model, trained, widths)
        whole = float(model.parameters * widths[stage.name])
        disk = _logged(plan.recipe, stage, checkpoints, whole, 4.0 * trained) if checkpoints else None
    return StagePlan(stage, data.format, rows, steps, tokens, tokens_from, checkpoints, disk, memory, packing)


def _logged(recipe: Recipe, stage: Stage, checkpoints: int, whole: float, adapters: float) -> float:
    """Bytes of the weights of a stage that go to the store, of a whole model and of adapters of so many bytes."""
    log = recipe.checkpoints.log
    if log == "none":
        return 0.0
    if stage.trains == "reward":  # whole, after its last step
        return whole
    kept = 1 if log == "final" else checkpoints
    if not stage.lora.rank:
        return kept * whole
    return kept * adapters + (0.0 if log == "adapters" else whole)  # the last ones are folded into a whole model too


def _packed(plan: Plan, stage: Stage, data: TrainingData, model: Model | None) -> tuple[int | None, str]:
    """How many rows are left of those that are packed, and what to say of them; None where that cannot be known."""
    if not stage.packs:
        return None, ""
    from valuedrift_mlflow.stages.turns import packed

    tokenizer = files.tokenizer_of(plan.recipe.base.model)
    rows = None
    if tokenizer is not None and model is not None and 0 < len(data.rows) <= PACKED_ROWS:
        seed = plan.recipe.seed if stage.seed is None else stage.seed
        rows = packed(Job(stage, model.empty(), tokenizer, data, Path(), seed, speech=plan.recipe.speech))
    if rows is None:
        return None, "packing: steps and checkpoints are an upper bound, of one row each"
    return rows, f"packing: {rows:,} rows of at most {stage.max_length:,} tokens"


def _tokens(
    recipe: Recipe, stage: Stage, data: TrainingData, steps: int | None, joined: float
) -> tuple[int | None, str]:
    """Tokens that the stage trains on, and where the number is from; ``joined`` rows of the data are one of a batch."""
    if steps is None:
        return None, ""
    rows = steps * stage.batch_size * stage.gradient_accumulation * stage.launch.world
    if not data.rows:
        return rows * stage.sequences * stage.max_length, "at most, from max_length"
    sampled = data.rows[:: math.ceil(len(data.rows) / SAMPLED_ROWS)]
    texts = [text for row in sampled for text in _texts(row, data.kind)]
    tokenizer: Any = files.tokenizer_of(recipe.base.model)
    if tokenizer is None:
        lengths, source = [len(text) / CHARACTERS for text in texts], f"{CHARACTERS} characters a token"
    else:
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        source = "the tokenizer"
    each = sum(min(length + stage.sampled_length, stage.max_length) for length in lengths) / len(sampled)
    return round(rows * each * joined), f"about, from {source}, in {len(sampled)} rows"


def _texts(row: Mapping[str, Any], kind: Kind) -> list[str]:
    """The sequences of a row, without a chat template's marks."""
    prompt = _said(row["prompt"])
    sides = {"pairs": ("chosen", "rejected"), "prompts": ()}.get(kind, ("completion",))
    return [f"{prompt}\n{_said(row[side])}" for side in sides] or [prompt]


def _said(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def _memory(plan: Plan, stage: Stage, model: Model, trained: int, widths: Mapping[str, float]) -> dict[str, float]:
    full = not stage.lora.rank
    shards = stage.launch.world if stage.launch.sharded else 1
    width = widths[stage.name] if full else widths[stage.start]
    kept = _whole_width(plan.recipe) if full else 4  # of a gradient, and of each of AdamW's two moments
    weights = float(model.parameters * width)
    copies = int(stage.has_reference) if full else 0
    memory = {
        "weights": (weights + (0 if full else 4 * trained)) / shards,
        "gradients": kept * trained / shards,
        "AdamW": 2 * kept * trained / shards,
        "16-bit copies": (2 * trained if full and kept == 4 else 0) / shards,
        "frozen copies": copies * weights / shards,
        "reward model": _reward_weights(plan, stage, model, widths),
    }
    training = _activations(stage, model) | _logits(plan, stage, model)
    cached = {"responses": _generated(plan, stage) * model.cache_of_token}
    memory |= training if sum(training.values()) >= cached["responses"] else cached
    return {key: value for key, value in memory.items() if value}


def _batch_tokens(stage: Stage) -> int:
    return stage.batch_size * stage.sequences * stage.max_length


def _activations(stage: Stage, model: Model) -> dict[str, float]:
    hidden, intermediate, layers, _ = model.shape
    tokens = _batch_tokens(stage)
    layer = 2.0 * tokens * (8 * hidden + 4 * intermediate)
    kept = layer + 2.0 * tokens * hidden * layers if stage.gradient_checkpointing else layers * layer
    return {"activations": kept}


def _logits(plan: Plan, stage: Stage, model: Model) -> dict[str, float]:
    vocabulary = 1 if stage.trains == "reward" else model.shape[3]  # a reward model has one output
    return {"logits": 10.0 * _batch_tokens(stage) * vocabulary}


def _reward_weights(plan: Plan, stage: Stage, model: Model, widths: Mapping[str, float]) -> float:
    """The reward model that a stage asks, where it is one of the recipe's stages; others are not known here."""
    return float(model.parameters * widths.get(stage.rated_by or "", 0))


def _generated(plan: Plan, stage: Stage) -> int:
    """Tokens whose keys and values are kept at once: of a measurement, or of the policy's rollouts."""
    measured = _measured(plan.recipe, plan.suite) if stage.trains == "policy" else 0
    return max(measured, stage.sampled_at_once * stage.max_length)


# Responses that are counted where a measurement takes as many as there is memory for: more make it faster, not larger
# than the memory that is free.
_ROWS = 64


def _measured(recipe: Recipe, suite: Suite) -> int:
    """Tokens of the longest prompt and responses that a measurement generates at once."""
    prompt = max(len(item.prompt) for item in suite.items) / CHARACTERS
    thought = recipe.max_thinking_tokens if recipe.thinking == "on" else 0
    return math.ceil((recipe.generation_batch_size or _ROWS) * (prompt + recipe.max_new_tokens + thought))


# What is shown -------------------------------------------------------------------------------------------------------

COLUMNS = ("stage", "from", "rows", "steps", "tokens", "checkpoints", "disk", "memory a device")


def gigabytes(size: float | None) -> str:
    """Bytes as a person reads them (1 GB is 10^9 bytes)."""
    if size is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def rows_of(plan: DryRun) -> list[list[str]]:
    """The plan's table: one row for each stage."""

    def count(number: int | None) -> str:
        return "unknown" if number is None else f"{number:,}"

    return [
        [
            entry.stage.name,
            entry.stage.start,
            count(entry.rows),
            count(entry.steps),
            count(entry.tokens),
            count(entry.checkpoints),
            gigabytes(entry.disk),
            gigabytes(entry.peak),
        ]
        for entry in plan.stages
    ]


def lines_of(plan: DryRun) -> list[str]:
    """What the table has no room for: model, data, settings of each stage, the parts of the memory."""
    recipe, model = plan.plan.recipe, plan.model
    size = f"{model.parameters:,} parameters" if model else "size unknown without its configuration: give base.config"
    size += ", loaded in 4 bits (NF4)" if recipe.base.quantization else ""
    lines = [f"base {recipe.base.model}: {size}", *speech_lines(recipe, recipe.base.model)]
    for entry in plan.stages:
        stage = entry.stage
        kind = f"LoRA of rank {stage.lora.rank}" if stage.lora.rank else "full fine-tuning"
        batch = f"{stage.batch_size} x {stage.gradient_accumulation} rows a step on {_devices(entry)}"
        lines.append(f"{stage.name} ({stage.algorithm}, {kind}, {batch}): {stage.data.uri} ({entry.format})")
        lines += [f"  {line}" for line in data_lines(plan.plan, stage)]
        if entry.packing:
            lines.append(f"  {entry.packing}")
        if entry.tokens is not None:
            lines.append(f"  tokens: {entry.tokens_from}")
        if entry.memory:
            parts = " + ".join(f"{name} {gigabytes(value)}" for name, value in entry.memory.items())
            lines.append(f"  memory of each device: {parts}")
        reward = stage.rated_by
        if reward and ":" not in reward and reward not in {other.name for other in recipe.stages}:
            lines.append(f"  the memory of the reward model {reward} is not in it")
    return [*lines, *plan.plan.notes]


def measured_line(plan: DryRun, *, base: bool) -> str:
    """The responses of all measurements: at the start, the checkpoints and the end of each stage, and of the base."""
    recipe, suite = plan.plan.recipe, plan.plan.suite
    measured = [entry.checkpoints for entry in plan.stages if entry.stage.trains == "policy"]
    inner = sum((checkpoints or 1) - 1 for checkpoints in measured)
    samples = (2 * len(measured) + int(base)) * recipe.samples + inner * (recipe.checkpoint_samples or recipe.samples)
    known = "" if None not in measured else "at least "
    count = f"{known}{samples * len(suite.items):,} responses of at most {recipe.max_new_tokens} tokens"
    return f"measured on {suite.identity} by {recipe.judge}: {count}"


def logged_line(plan: DryRun, *, base: bool) -> str:
    """The bytes of the weights that go to the store; with ``base`` a pipeline's, which logs what it starts from too."""
    recipe = plan.plan.recipe
    log = f"weights in the store (checkpoints.log: {recipe.checkpoints.log})"
    of_stages = [entry.disk for entry in plan.stages]
    if plan.model is None or None in of_stages:
        return f"{log}: unknown"
    adapted = any(entry.stage.lora.rank for entry in plan.stages) and recipe.checkpoints.log != "none"
    start = logs_base(recipe) if base else adapted and only_here(recipe.base.model)
    of_base = plan.model.parameters * plan.model.bytes_each if start else 0.0
    told = f", {gigabytes(of_base)} of them of the model that all starts from" if start else ""
    return f"{log}: {gigabytes(sum(filter(None, of_stages)) + of_base)}{told}"


def certainty_line(plan: DryRun) -> str:
    """The drift that the longest stage can find; the samples are those of a stage's start and end."""
    recipe = plan.plan.recipe
    known = [entry.checkpoints or 1 for entry in plan.stages if entry.stage.trains == "policy"]
    return expected_line(plan.plan.suite, recipe.samples, max(known), recipe.interval)


def speech_lines(recipe: Recipe, uri: str) -> list[str]:
    """Where a model's answers end and how it thinks, as far as its files are at hand.

    Raises:
        InputError: its chat template does not name an argument of ``template_kwargs``.
    """
    tokenizer, speech = files.tokenizer_of(uri), recipe.speech
    if tokenizer is None:
        return []
    ends = known_ends(files.generation_config_of(uri), tokenizer, speech.stop)
    names = [repr(tokenizer.decode([token])) for token in ends]
    names += [repr(text) for text in speech.stop if stop_token(tokenizer, text) is None]
    lines = [f"  answers end with {', '.join(names) or 'nothing but their length'}"]
    told = ", ".join(f"{name}={value}" for name, value in speech.arguments(tokenizer).items())
    switch = speech.switch(tokenizer)
    if tokenizer.chat_template is None:
        lines.append('  no chat template: asked as "PROMPT, Response:"')
    elif switch or told:
        lines.append(f"  chat template with {told}" + (f": thinking {recipe.thinking}" if switch else ""))
    if speech.thinking and not switch:
        lines.append("  thinking on does nothing here: the chat template has no switch for it")
    return lines


def evaluation_lines(recipe: Recipe, uri: str, suite: Suite) -> list[str]:
    """What an evaluation would ask one model, and the memory that takes."""
    asked = f"{len(suite.items):,} prompts of {suite.identity} x {recipe.samples} samples"
    lines = [f"{uri}: {asked}, at most {recipe.max_new_tokens} tokens each, judged by {recipe.judge}"]
    if uri.startswith(models.SERVER_PREFIX):
        return [*lines, f"  thinking {recipe.thinking}, by chat_template_kwargs where the server takes them"]
    lines += speech_lines(recipe, uri)
    model = model_of(Recipe(base=Base(model=uri, config=recipe.base.config)))
    if model is None:
        return [*lines, "  memory: unknown without its configuration: give base.config"]
    cache = _measured(recipe, suite) * model.cache_of_token
    weights = model.parameters * model.bytes_each
    return [*lines, f"  memory: weights {gigabytes(weights)} + responses {gigabytes(cache)}"]


def _devices(entry: StagePlan) -> str:
    sharded = ", sharded" if entry.stage.launch.sharded else ""
    nodes = f" of {entry.stage.launch.nodes} machines" if entry.stage.launch.nodes > 1 else ""
    return "one device" if entry.devices == 1 else f"each of {entry.devices} devices{nodes}{sharded}"


def show(plan: DryRun, display: Display) -> None:
    """Print the plan."""
    display.table(f"Dry run of {plan.plan.source}: nothing was computed", COLUMNS, rows_of(plan))
    for line in lines_of(plan):
        display.line(line)
