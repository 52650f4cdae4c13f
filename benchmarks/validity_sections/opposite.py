"""Propositions that move to opposite sides."""

from __future__ import annotations

import numpy as np

from validity_sections.page import Row
from validity_sections.worlds import World, answers, probabilities
from valuedrift_mlflow.statistics.drift import analyse


def opposite_moves(runs: int) -> list[Row]:
    """Propositions of one topic move to opposite sides, the others stay: what the two distances say."""
    rows = []
    rng = np.random.default_rng(8)
    for moves in (0.0, 0.5, 1.0, 2.0):
        world, true, seen, net = World(topics=2), [], [], []
        for run in range(runs):
            chances = probabilities(world, rng)
            half = world.propositions * world.phrasings
            sign = np.repeat([1.0, -1.0] * (world.propositions // 2), world.phrasings)
            logits = np.log(chances[0])
            logits[:half, 0] += moves * sign
            chances[1] = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
            by_unit = (chances[1] - chances[0]).reshape(2, world.propositions, -1, 3).mean(axis=2)
            true.append((0.5 * by_unit**2).sum(axis=-1).mean(axis=1))
            names = world.proposition_of
            d = analyse(answers(world, chances, rng), world.topic_of, [0, 1], propositions=names, seed=run)
            seen.append((d.within[1] ** 2, d.within_p_value[1] <= 0.05))
            net.append(d.topic_significant[1, 0])
        squares, found = np.mean(seen, axis=0)
        rows.append(
            (
                f"{np.sqrt(np.mean(true, axis=0)[0]):.3f}",
                f"{np.sqrt(squares[0]):.3f}",
                f"{found[0]:.3f}",
                f"{found[1]:.3f}",
                f"{np.mean(net):.3f}",
            )
        )
    return rows
