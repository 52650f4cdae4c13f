"""When stances arrive in a stage of ten checkpoints, and whether they go beyond where they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from validity_sections.page import Row
from validity_sections.worlds import Floats, World, answers, holds, probabilities, shifted, truth
from valuedrift_mlflow.statistics.arrival import arrival_times
from valuedrift_mlflow.statistics.drift import Drift, analyse

ELAPSED = np.linspace(0, 1, 11)
Path = Callable[[Floats], Floats]


def exponential(elapsed: Floats, at: float = 0.6) -> Floats:
    """The share of the final change that has come, 90 % of it at the given time."""
    scale = brentq(lambda tau: (1 - np.exp(-at / tau)) - 0.9 * (1 - np.exp(-1 / tau)), 0.02, 50)
    come: Floats = (1 - np.exp(-elapsed / scale)) / (1 - np.exp(-1 / scale))
    return come


def ramp(elapsed: Floats) -> Floats:
    """All of the change within the first fifth."""
    return np.minimum(elapsed / 0.2, 1.0)


def even(elapsed: Floats) -> Floats:
    """As much of the change at every step."""
    return elapsed


def staged(world: World, path: Path, rng: np.random.Generator) -> Floats:
    """(C, N, 3) chances that go from those before to those after training along a path."""
    ends = probabilities(world, rng)
    return ends[:1] + path(ELAPSED)[:, None, None] * (ends[1:2] - ends[:1])


def analysed(world: World, path: Path, runs: int, seed: int) -> list[Drift]:
    """Stages along a path."""
    rng, found = np.random.default_rng(seed), []
    for run in range(runs):
        given = answers(world, staged(world, path, rng), rng)
        steps = range(0, 10 * len(ELAPSED), 10)
        found.append(analyse(given, world.topic_of, steps, propositions=world.proposition_of, seed=run, resamples=500))
    return found


def arrivals(runs: int) -> list[Row]:
    """The time to 50 % and 90 % of the change as read, how often intervals hold it, and what the paper's rule reads."""
    rows = []
    plain = World(topics=3, moves=0.3)
    for label, world, path, drift in (
        ("exponential", plain, exponential, 0.2),
        ("exponential", plain, exponential, 0.4),
        ("exponential, 30 propositions of 2 prompts", replace(plain, propositions=30, phrasings=2), exponential, 0.3),
        ("exponential, 30 propositions, 10 samples", replace(plain, propositions=30, samples=10), exponential, 0.4),
        ("even", plain, even, 0.4),
        ("within the first fifth", plain, ramp, 0.4),
    ):
        moved = shifted(world, drift)
        true = [float(arrival_times(path(ELAPSED)[None], ELAPSED, share)[0]) for share in (0.5, 0.9)]
        found = analysed(moved, path, runs, 12)
        times = np.concatenate([d.arrival[:, 0] for d in found])
        ends = np.concatenate([d.arrival_ci[:, 0] for d in found])
        paper = np.concatenate([d.drift_time[:, 0] for d in found])
        known = ~np.isnan(times[:, 0])
        held = holds(ends[known], np.array(true)).mean(axis=0)
        read = np.median(times[known], axis=0)
        widths = np.median(np.diff(ends[known], axis=-1), axis=0)[:, 0]
        cells = [f"{t:.2f} / {r:.2f} ({h:.3f}, {w:.2f})" for t, r, h, w in zip(true, read, held, widths, strict=True)]
        rows.append((label, f"{drift:.1f}", f"{known.mean():.2f}", *cells, f"{np.nanmedian(paper):.2f}"))
    return rows


def overshoots(runs: int) -> list[Row]:
    """Support goes up by a planted excess in the middle of a stage and comes back to where it ends."""
    rows = []
    end = shifted(World(topics=3), 0.2)
    logits_end = end.shift
    for excess in (0.0, 0.05, 0.1, 0.2):
        peak = shifted(World(topics=3), 0.2 + excess).shift
        path = np.interp(ELAPSED, [0, 0.5, 1], [0, peak, logits_end]) if excess else logits_end * ramp(ELAPSED)
        true = float(truth(replace(end, shift=path.max()))[1, 0] - truth(end)[1, 0])
        sizes, held, shown, plain = [], [], [], []
        rng = np.random.default_rng(13)
        for run in range(runs):
            chances = _along(end, path, rng)
            given = answers(end, chances, rng)
            steps = range(0, 10 * len(ELAPSED), 10)
            d = analyse(given, end.topic_of, steps, propositions=end.proposition_of, seed=run, resamples=500)
            known = ~np.isnan(d.overshoot[:, 0])
            sizes += d.overshoot[known, 0].tolist()
            held += holds(d.overshoot_ci[known, 0], np.full(known.sum(), true)).tolist()
            shown.append(bool((d.overshoot_p[:, 0] <= 0.05).any()))
            plain += (d.probability[:, known, 0] - d.probability[-1:, known, 0]).max(axis=0).tolist()
        rows.append(
            (
                f"{true:.3f}",
                f"{np.mean(plain):.3f}",
                f"{np.mean(sizes):.3f}",
                f"{np.mean(held):.3f}",
                f"{np.mean(shown):.3f}",
            )
        )
    return rows


def _along(world: World, shifts: Floats, rng: np.random.Generator) -> Floats:
    """(C, N, 3) chances whose logit of support has each shift."""
    logits = np.log(probabilities(replace(world, checkpoints=1), rng)[0])
    stage = np.repeat(logits[None], len(shifts), axis=0)
    stage[..., 0] += shifts[:, None]
    chances: Floats = np.exp(stage) / np.exp(stage).sum(axis=-1, keepdims=True)
    return chances
