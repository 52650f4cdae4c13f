"""Simulated suites, models and judges, and the stages that are analysed.

A simulated answer comes about as a referee of the package would have it: propositions differ, prompts differ, and both
change. Stance logits are normal: a mean, an effect of the proposition, an effect of the prompt; after training each has
changed by a shift, by an effect of the proposition and by one of the prompt. A hard judge says one stance, a soft one
gives probabilities. The truth is the mean over very many propositions (`propositions`), or over the prompts that
were asked (`prompts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.units import Interval

Floats = NDArray[np.float64]
MANY = 20_000  # propositions that stand for all, with one prompt each


@dataclass(frozen=True)
class World:
    """A suite, a model and a judge. Effects are standard deviations of logits."""

    topics: int = 11
    propositions: int = 10
    phrasings: int = 5
    samples: int = 5
    checkpoints: int = 2
    base: tuple[float, float, float] = (0.3, 0.5, 0.2)
    proposition: float = 1.0  # how far propositions differ
    prompt: float = 0.5  # how far prompts of a proposition differ
    moves: float = 0.0  # how far propositions move at random, each its own way
    prompt_moves: float = 0.0
    shift: float = 0.0  # of the logit of support, in all topics (or in the first few)
    moved_topics: int | None = None
    soft: bool = False

    @property
    def topic_of(self) -> list[str]:
        """The topic of each prompt."""
        return [f"topic_{t}" for t in range(self.topics) for _ in range(self.propositions * self.phrasings)]

    @property
    def proposition_of(self) -> list[str]:
        """The proposition of each prompt."""
        return [f"p{number // self.phrasings}" for number in range(len(self.topic_of))]


def probabilities(world: World, rng: np.random.Generator) -> Floats:
    """(C, N, 3) the true stance probabilities of every prompt; checkpoints after the first are alike in expectation."""
    units, prompts = world.topics * world.propositions, len(world.topic_of)
    logits = np.log(np.array(world.base)) + world.prompt * rng.standard_normal((prompts, 3))
    logits = logits + np.repeat(world.proposition * rng.standard_normal((units, 3)), world.phrasings, axis=0)
    stage = [logits]
    moved = np.zeros((prompts, 3))
    topics = world.topics if world.moved_topics is None else world.moved_topics
    moved[: topics * world.propositions * world.phrasings, 0] = world.shift
    for _ in range(1, world.checkpoints):
        own = np.repeat(world.moves * rng.standard_normal((units, 3)), world.phrasings, axis=0)
        stage.append(logits + moved + own + world.prompt_moves * rng.standard_normal((prompts, 3)))
    exponentials = np.exp(np.stack(stage))
    chances: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return chances


def answers(world: World, chances: Floats, rng: np.random.Generator) -> Floats:
    """(C, N, 3) -> (C, N, S, 3) what the judge gives to every answer."""
    if world.soft:
        drawn = rng.dirichlet([1.0, 1.0, 1.0], size=(*chances.shape[:2], world.samples))
        mixed: Floats = 0.8 * chances[:, :, None] + 0.2 * drawn  # its mean is not the chance, but the same everywhere
        return mixed
    cumulated = chances.cumsum(axis=-1)[:, :, None]
    stance = (rng.random((*chances.shape[:2], world.samples, 1)) > cumulated[..., :2]).sum(axis=-1)
    hard: Floats = np.eye(3)[stance]
    return hard


def expected(world: World, chances: Floats) -> Floats:
    """(C, N, 3) the mean of what the judge gives."""
    return 0.8 * chances + 0.2 / 3 if world.soft else chances


def truth(world: World) -> Floats:
    """(C, 3) the stances of propositions like these, by topic alike."""
    many = replace(world, topics=1, propositions=MANY, phrasings=1, moved_topics=None)
    means: Floats = np.mean(
        [expected(world, probabilities(many, np.random.default_rng(k))).mean(axis=1) for k in range(5)], axis=0
    )
    return means


def correlation(world: World) -> float:
    """The intraclass correlation of hard answers within propositions, mean over stances."""
    many = replace(world, topics=1, propositions=4000, phrasings=2, checkpoints=1, shift=0.0)
    chances = probabilities(many, np.random.default_rng(0))[0].reshape(-1, 2, 3)
    centred = chances - chances.mean(axis=(0, 1))
    shared = (centred[:, 0] * centred[:, 1]).mean(axis=0)
    mean = chances.mean(axis=(0, 1))
    return float((shared / (mean * (1 - mean))).mean())


def stages(world: World, runs: int, seed: int, interval: Interval, resamples: int) -> Iterator[tuple[Drift, Floats]]:
    """Simulated stages as they are analysed, with the true probabilities of their prompts."""
    rng = np.random.default_rng(seed)
    for run in range(runs):
        chances = probabilities(world, rng)
        drift = analyse(
            answers(world, chances, rng),
            world.topic_of,
            range(world.checkpoints),
            propositions=world.proposition_of,
            interval=interval,
            resamples=resamples,
            seed=run,
        )
        yield drift, expected(world, chances)


def holds(interval: Floats, value: Floats) -> NDArray[np.bool_]:
    """(..., 2), (...) -> (...) whether the interval holds the value."""
    held: NDArray[np.bool_] = (interval[..., 0] <= value + 1e-9) & (value - 1e-9 <= interval[..., 1])
    return held


def true_stances(world: World, chances: Floats, everywhere: Floats, interval: Interval) -> Floats:
    """(C, T, 3) what the interval shall hold."""
    if interval == "propositions":
        return np.repeat(everywhere[:, None], world.topics, axis=1)
    means: Floats = chances.reshape(len(chances), world.topics, -1, 3).mean(axis=2)
    return means


def shifted(world: World, drift: float) -> World:
    """The world in which propositions like these drift so far, towards support, found by halving."""
    low, high = 0.0, 6.0
    for _ in range(12):
        middle = (low + high) / 2
        means = truth(replace(world, shift=middle))
        low, high = (middle, high) if 0.5 * np.abs(means[1] - means[0]).sum() < drift else (low, middle)
    return replace(world, shift=(low + high) / 2)
