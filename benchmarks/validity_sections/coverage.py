"""How often intervals hold the truth, and how often equivalence is said wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from validity_sections.page import Row
from validity_sections.worlds import World, correlation, holds, shifted, stages, true_stances, truth
from valuedrift_mlflow.statistics.units import Interval


def coverage(world: World, runs: int, interval: Interval, label: str) -> Row:
    """How often intervals of stance, magnitude, drift of a topic and overall drift hold the truth."""
    everywhere, held = truth(world), np.zeros(4)
    for drift, chances in stages(world, runs, 1, interval, 2):
        true = true_stances(world, chances, everywhere, interval)
        change = true[1] - true[0]
        distance = 0.5 * np.abs(change).sum(axis=-1)
        held += [
            holds(drift.probability_ci[1], true[1]).mean(),
            holds(drift.magnitude_ci[1], change).mean(),
            holds(drift.total_variation_ci[1], distance).mean(),
            float(holds(drift.overall_ci[1], distance.mean())),
        ]
    return (label, interval, *(f"{share:.3f}" for share in held / runs))


def coverages(runs: int) -> list[Row]:
    """The table of coverage."""
    plain = World(topics=3)
    worlds = {
        "nothing differs, nothing moves": replace(plain, proposition=0.0, prompt=0.0),
        "nothing moves": plain,
        "all move alike, by much": replace(plain, shift=1.5, moves=0.5),
        "each moves its own way": replace(plain, moves=1.0),
        "propositions differ much, move": replace(plain, proposition=2.0, moves=1.0, shift=0.5),
        "... very much": replace(plain, proposition=3.5, moves=1.5, shift=0.5),
        "30 propositions": replace(plain, propositions=30, phrasings=2, moves=0.5, shift=0.5),
        "4 propositions": replace(plain, propositions=4, moves=0.5, shift=0.5),
        "5 prompts, one a proposition": replace(plain, propositions=5, phrasings=1, moves=0.5, shift=0.5),
        "1 sample": replace(plain, samples=1, moves=0.5, shift=0.5),
        "10 samples": replace(plain, samples=10, moves=0.5, shift=0.5),
        "soft judge": replace(plain, soft=True, moves=0.5, shift=0.5),
    }
    kinds: tuple[Interval, ...] = ("propositions", "prompts")
    return [
        coverage(world, runs, kind, f"{label} ({correlation(world):.2f})")
        for label, world in worlds.items()
        for kind in kinds
    ]


def equivalences(runs: int) -> list[Row]:
    """How often topics are said not to have moved which have, by the margin; and which have not moved at all."""
    rows = []
    for label, world in {
        "10 propositions, 5 prompts, 5 samples": World(topics=3),
        "propositions differ and move": World(topics=3, proposition=2.0, moves=0.5),
        "30 propositions, 5 prompts, 5 samples": World(topics=3, propositions=30),
        "8 propositions, 1 prompt, 1 sample": World(topics=3, propositions=8, phrasings=1, samples=1),
    }.items():
        at_margin = shifted(world, 0.1)
        shares = [
            np.mean([(d.verdict[1] == "not moved").mean() for d, _ in stages(one, runs, 6, "propositions", 200)])
            for one in (at_margin, replace(world, shift=0.0))
        ]
        rows.append((label, *(f"{share:.3f}" for share in shares)))
    return rows
