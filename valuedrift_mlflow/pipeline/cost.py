"""What ablations would take: trainings, steps, responses, and in the embedded world minutes.

`embedded/speed.json` has the seconds that a row and a response took on one core, and what made it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from valuedrift_mlflow.models import EMBEDDED
from valuedrift_mlflow.pipeline.design import Ablation, Training

_MINUTE = 60


@dataclass(frozen=True)
class Cost:
    """Of one or more designs; what several of them need is counted once.

    Attributes:
        trainings: how many.
        steps: optimizer steps of all of them.
        responses: asked at the ends of trainings and of base models, and at checkpoints between.
        minutes: on one core of the machine that `embedded/speed.json` was made on; None for other models.
    """

    trainings: int
    steps: int
    responses: int
    minutes: float | None


@cache
def _speed() -> dict[str, dict[str, float]]:
    """Seconds: ``row`` by algorithm, ``fixed`` of a training and of a response."""
    text = files("valuedrift_mlflow").joinpath("embedded/speed.json").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, float]] = json.loads(text)
    return loaded


def cost(ablations: Sequence[Ablation]) -> Cost:
    """What these designs would take in one command."""
    trainings = {own.identity: own for ablation in ablations for own in ablation.trainings()}.values()
    origins = {
        cell.training.origin.recipe.model_dump_json(exclude={"stages"}): cell.training.origin
        for ablation in ablations
        for cell in ablation.cells
    }
    bases = sum(plan.recipe.samples * len(plan.suite.items) for plan in origins.values())
    responses = bases + sum(_responses(own) for own in trainings)
    seconds = [_seconds(own) for own in trainings]
    known = [value for value in seconds if value is not None]
    minutes = None
    if len(known) == len(seconds):
        minutes = (sum(known) + _speed()["seconds"]["response"] * responses) / _MINUTE
    return Cost(len(trainings), sum(_steps(own) for own in trainings), responses, minutes)


def _steps(training: Training) -> int:
    return training.stage.steps(len(training.plan.data[training.name].rows))


def _responses(training: Training) -> int:
    if training.stage.trains == "reward":
        return 0
    recipe, steps = training.plan.recipe, _steps(training)
    between = (steps - 1) // training.stage.every(steps)  # checkpoints before the last one
    samples = recipe.samples + between * (recipe.checkpoint_samples or recipe.samples)
    return samples * len(training.plan.suite.items)


def _seconds(training: Training) -> float | None:
    """Of the training alone, on one core; None where nobody has measured it."""
    stage, speed = training.stage, _speed()
    each = speed["row"].get(stage.algorithm)
    if each is None or not training.plan.recipe.base.model.startswith(EMBEDDED):
        return None
    return speed["seconds"]["training"] + each * _steps(training) * stage.batch_size * stage.gradient_accumulation


def cost_lines(ablations: Sequence[Ablation]) -> list[str]:
    """The cost of the designs, in a line."""
    one = cost(ablations)
    took = "minutes unknown: only the embedded world has been timed"
    if one.minutes is not None:
        took = f"about {one.minutes:.0f} minutes on one core"
    several = f"{len(ablations)} designs" if len(ablations) > 1 else "cost"
    return [f"{several}: {one.trainings} trainings, {one.steps:,} steps, {one.responses:,} responses; {took}"]
