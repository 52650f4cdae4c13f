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
from valuedrift_mlflow.pipeline.ablation_certainty import detectable_line
from valuedrift_mlflow.pipeline.ablation_summary import cell_name
from valuedrift_mlflow.pipeline.design import Ablation, Training

_MINUTE = 60


@dataclass(frozen=True)
class Cost:
    """Of one or more designs; what several of them need is counted once.

    Attributes:
        trainings: how many.
        steps: optimizer steps of all of them.
        more_steps: whether some have steps that are not known, as their rows lie on the hub.
        responses: asked at the ends of trainings and of base models, and at checkpoints between.
        minutes: on one core of the machine that `embedded/speed.json` was made on; None for other models.
    """

    trainings: int
    steps: int
    more_steps: bool
    responses: int
    minutes: float | None

    @property
    def shown_steps(self) -> str:
        """The steps in words."""
        return f"{'at least ' if self.more_steps else ''}{self.steps:,} steps"


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
    steps = [_steps(own) for own in trainings]
    return Cost(len(trainings), sum(known or 0 for known in steps), None in steps, responses, minutes)


def _steps(training: Training) -> int | None:
    """Of a training; None where they follow from rows that a dry run does not read."""
    stage = training.stage
    rows = len(training.plan.data[training.name].rows) or stage.data.rows
    return stage.steps(rows or 0) if rows or stage.max_steps else None


def _responses(training: Training) -> int:
    """Asked at the end of a training and at its checkpoints, those that are known."""
    if training.stage.trains == "reward":
        return 0
    recipe, checkpoints = training.plan.recipe, training.stage.checkpoints(_steps(training)) or 1
    samples = recipe.samples + (checkpoints - 1) * (recipe.checkpoint_samples or recipe.samples)
    return samples * len(training.plan.suite.items)


def _seconds(training: Training) -> float | None:
    """Of the training alone, on one core; None where nobody has measured it."""
    stage, speed, steps = training.stage, _speed(), _steps(training)
    each = speed["row"].get(stage.algorithm)
    if each is None or steps is None or not training.plan.recipe.base.model.startswith(EMBEDDED):
        return None
    return speed["seconds"]["training"] + each * steps * stage.batch_size * stage.gradient_accumulation


def ablation_lines(ablation: Ablation) -> list[str]:
    """The cells of an ablation, the trainings that they come to, and what it can find."""
    trainings, one = ablation.trainings(), cost([ablation])
    own = {cell.training.name for cell in ablation.cells}
    choices = dict.fromkeys(cell_name(cell.series, cell.doses) for cell in ablation.cells)
    return [
        f"design {ablation.design_source}: {len(ablation.cells)} cells, {len(trainings)} trainings "
        f"({len(trainings) - len(own)} of them shared or needed by others), {one.shown_steps}",
        f"  {one.responses:,} responses at the ends of the trainings and of the base, and at checkpoints between",
        f"  seeds {', '.join(map(str, ablation.design.seeds))} of: {'; '.join(choices)}",
        *(["  packing: steps are an upper bound, of one row each"] if any(t.stage.packs for t in trainings) else []),
        detectable_line(ablation),
    ]


def cost_lines(ablations: Sequence[Ablation]) -> list[str]:
    """The cost of the designs, in a line."""
    one = cost(ablations)
    took = "minutes unknown: only the embedded world has been timed"
    if one.minutes is not None:
        took = f"about {one.minutes:.0f} minutes on one core"
    several = f"{len(ablations)} designs" if len(ablations) > 1 else "cost"
    return [f"{several}: {one.trainings} trainings, {one.shown_steps}, {one.responses:,} responses; {took}"]
