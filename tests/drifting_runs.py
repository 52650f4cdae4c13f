"""Runs of an ablation with a planted drift, for tests of what compares them."""

import numpy as np

from valuedrift_mlflow.statistics.paired import Changes


def drifting(
    size: float, seeds: int, rng: np.random.Generator, topics: int = 4, each: int = 8, spread: float = 0.1
) -> list[Changes]:
    """Runs whose topics drift by this size from oppose to support; propositions and responses differ by ``spread``."""
    where = np.repeat(np.arange(topics), each)
    shared = spread * rng.standard_normal(topics * each)
    runs = []
    for _ in range(seeds):
        support = size + shared + spread * rng.standard_normal(len(where))
        change = np.stack([support, np.zeros_like(support), -support], axis=1)
        runs.append(Changes(change, np.full(len(where), 5), where))
    return runs
