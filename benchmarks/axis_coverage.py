"""How often the intervals of axis shifts cover what was planted, and how often an axis is starred that did not move.

Eleven topics of ten propositions (five keyed +1, five -1; the last three and seven, as free speech in `vaes`), five
prompts each, five answers a prompt. Propositions and prompts differ in their leaning before (standard deviations 0.15
and 0.1), and propositions in how much they change (0.08). The first topic moves by 0.3 along its axis, and with it a
general axis of all propositions by 0.3 / 11. About 20 seconds on one core:

    python benchmarks/axis_coverage.py
    python benchmarks/axis_coverage.py --runs 1000 --agreement 0.2
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.axes import analyse_axes

TOPICS, PROPOSITIONS, PROMPTS, ANSWERS = 11, 10, 5, 5
SHIFT, NEUTRAL = 0.3, 0.2
Floats = NDArray[np.float64]


def drawn(leaning: Floats, rng: np.random.Generator) -> Floats:
    """Shares of stances in some answers to each prompt, (N,) leanings -> (N, 3)."""
    room = 1 - NEUTRAL
    leaning = np.clip(leaning, -room, room)
    shares = np.stack([(room + leaning) / 2, np.full_like(leaning, NEUTRAL), (room - leaning) / 2], axis=-1)
    return rng.multinomial(ANSWERS, shares) / ANSWERS


def keys() -> NDArray[np.int64]:
    """Directions on the general axis, then on those of the topics, shape (1 + T, P)."""
    directions = np.tile([1] * 5 + [-1] * 5, TOPICS)
    directions[-PROPOSITIONS:] = [1] * 3 + [-1] * 7
    topic = np.repeat(np.arange(TOPICS), PROPOSITIONS)
    return np.vstack([directions, np.where(topic == np.arange(TOPICS)[:, None], directions, 0)])


def main() -> None:
    """Print coverage for each kind of axis, power, and the share of runs with a false star."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--agreement", type=float, default=0.0, help="change of leaning of every proposition")
    arguments = parser.parse_args()
    keyed, names = keys(), ["general", *(f"topic {number}" for number in range(TOPICS))]
    proposition = np.repeat(np.arange(TOPICS * PROPOSITIONS), PROMPTS)
    # The general axis weighs its sides one half each: the first topic has 5 of those keyed +1, and 5 of those keyed -1.
    plus, minus = (keyed[0] > 0).sum(), (keyed[0] < 0).sum()
    truth = np.array([SHIFT * (5 / plus + 5 / minus) / 2, SHIFT, *[0.0] * (TOPICS - 1)])
    covered, starred, estimates = [], [], []
    for run in range(arguments.runs):
        rng = np.random.default_rng(run)
        before = rng.normal(0, 0.15, keyed.shape[1])[proposition] + rng.normal(0, 0.1, len(proposition))
        change = arguments.agreement + SHIFT * keyed[1] + rng.normal(0, 0.08, keyed.shape[1])
        values = np.stack([drawn(before, rng), drawn(before + change[proposition], rng)])
        found = analyse_axes(values, proposition, keyed, names, [0, 1], seed=run)
        low, high = found.shift_ci[-1].T
        covered.append((low <= truth) & (truth <= high))
        starred.append(found.significant[-1])
        estimates.append(found.shift[-1])
    rows, stars = np.mean(covered, axis=0), np.array(starred)
    print(f"{arguments.runs} runs, agreement {arguments.agreement:+.2f}")
    for label, own in (("general", [0]), ("moved topic", [1]), ("still topics", list(range(2, 12)))):
        shift = np.mean(np.array(estimates)[:, own])
        print(
            f"{label:13} coverage {rows[own].mean():.3f}, mean shift {shift:+.3f}, starred {stars[:, own].mean():.3f}"
        )
    print(
        f"all intervals: coverage {rows.mean():.3f}; runs with a still topic starred: {stars[:, 2:].any(1).mean():.3f}"
    )


if __name__ == "__main__":
    main()
