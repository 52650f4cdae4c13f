"""What the analysis of a stage costs, at its end and at every checkpoint."""

from __future__ import annotations

import time

import numpy as np

from validity_sections.page import Row
from validity_sections.worlds import World, answers, probabilities
from valuedrift_mlflow.statistics.drift import analyse
from valuedrift_mlflow.statistics.family import Joined


def speed(_: int) -> list[Row]:
    """Seconds of CPU for a stage of 50 checkpoints and 550 prompts with 10,000 resamples, and for SciPy's bootstrap."""
    from scipy.stats import bootstrap

    world = World(checkpoints=50)
    rng = np.random.default_rng(9)
    given = answers(world, probabilities(world, rng), rng)
    start = time.process_time()
    analyse(given, world.topic_of, range(50), propositions=world.proposition_of, resamples=10_000)
    ours = time.process_time() - start
    start = time.process_time()
    column = given[1, :50, :, 0].mean(axis=1) - given[0, :50, :, 0].mean(axis=1)
    bootstrap((column,), np.mean, n_resamples=10_000, method="percentile", rng=rng)
    theirs = (time.process_time() - start) * 50 * world.topics * 3  # one stance of one topic at one checkpoint
    return [(f"{ours:.1f} s", f"{theirs:.1f} s", f"{theirs / ours:.1f}")]


def checkpoints(_: int) -> list[Row]:
    """Seconds of CPU to tell of the newest step at every checkpoint, as the callback does."""
    rows = []
    for number in (10, 50):
        world = World(checkpoints=number + 1)
        rng = np.random.default_rng(14)
        given = answers(world, probabilities(world, rng), rng)
        tests, names = Joined(), world.proposition_of
        start = time.process_time()
        for newest in range(1, number + 1):
            both = given[[0, newest]]
            analyse(both, world.topic_of, (0, newest), propositions=names, earlier=tests, with_course=False)
        spent = time.process_time() - start
        asked = number * len(world.topic_of) * world.samples
        rows.append((str(number), f"{spent:.1f} s", f"{asked:,}", f"{1e6 * spent / asked:.0f} us"))
    return rows
