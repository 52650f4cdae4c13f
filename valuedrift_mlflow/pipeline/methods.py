"""A pipeline's methods in the words of a paper: every setting, so that somebody else could do it again."""

from __future__ import annotations

from collections.abc import Sequence

from valuedrift_mlflow.evaluation import methods
from valuedrift_mlflow.pipeline.plan import Plan, StageResult
from valuedrift_mlflow.stages.stage import Stage


def methods_of(plan: Plan, results: Sequence[StageResult], *, version: str, commit: str = "") -> list[str]:
    """The paragraphs: how models were trained, how they were measured, how that was analysed, and with what."""
    recipe, trained = plan.recipe, [result for result in results if result.start]
    seeded = f"All began with the seed {recipe.seed} where no other is named."
    stages = " ".join(_stage(plan, stage, results) for stage in recipe.stages)
    training = f"Models were trained from {recipe.base.model} by the recipe {plan.source}. {stages} {seeded}"
    last = results[-1]
    measured = [methods.asked(plan.suite), methods.answered(recipe), methods.judged(last.measurements[-1])]
    analysis = [methods.analysed(last.drift, plan.suite), f"Drift times are by the rule {recipe.drift_time}."]
    return [
        *([training] if trained else []),
        " ".join(measured),
        " ".join(analysis if trained else analysis[:1]),
        methods.made_with(version, commit),
    ]


def _stage(plan: Plan, stage: Stage, results: Sequence[StageResult]) -> str:
    """One stage: algorithm, start, data, and the settings that its trainer took."""
    data = plan.data[stage.name]
    done = next((int(result.drift.steps[-1]) for result in results if result.name == stage.name), None)
    steps = f"{done:,} steps" if done else f"{stage.steps(len(data.rows)):,} steps"
    weights = f"adapters of rank {stage.lora.rank}" if stage.lora.rank else "all weights"
    batch = f"{stage.batch_size} rows"
    if stage.gradient_accumulation > 1:
        batch += f" x {stage.gradient_accumulation} accumulated"
    if stage.launch.world > 1:
        batch += f" x {stage.launch.world} processes"
    own = {key: value for key, value in stage.parameters().items() if key.endswith(".beta")}
    beta = "".join(f", beta {value}" for value in own.values())
    seed = f", seed {stage.seed}" if stage.seed is not None else ""
    return (
        f"{stage.name}: {stage.algorithm} from {stage.start} on {data.uri} ({len(data.rows):,} rows, digest "
        f"{data.digest()}), {steps} of {batch}, {weights}, learning rate {stage.learning_rate:g} ({stage.schedule}, "
        f"warm-up {stage.warmup_ratio:g}){beta}{seed}."
    )
