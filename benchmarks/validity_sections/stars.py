"""Stars: false ones, those that unscored answers cause, those that are found, and what is left of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from validity_sections.page import Row
from validity_sections.worlds import Floats, World, answers, holds, probabilities, shifted, stages, truth
from valuedrift_mlflow.statistics.drift import analyse
from valuedrift_mlflow.statistics.power import Design, announced


def false_alarms(runs: int) -> list[Row]:
    """How often a stage in which nothing moves on average has a star anywhere, and single topics at its end."""
    stage = World(checkpoints=11)
    worlds = {
        "nothing moves": stage,
        "propositions move at random, mean 0": replace(stage, moves=1.0),
        "... and differ much": replace(stage, proposition=3.0, moves=1.0),
        "8 propositions of one prompt, 1 sample": replace(stage, propositions=8, phrasings=1, samples=1),
    }
    rows = []
    for label, world in worlds.items():
        # Effects of logits move the mean where it is not at the middle: stances that are alike have none to move to.
        level = replace(world, base=(1 / 3, 1 / 3, 1 / 3)) if world.moves else world
        found = [
            (drift.significant.any(), (drift.p_value[-1] <= 0.05).any(axis=-1).mean())
            for drift, _ in stages(level, runs, 2, "propositions", 1000)
        ]
        star, single = np.mean(found, axis=0)
        rows.append((label, f"{star:.3f}", f"{single:.3f}"))
    return rows


def missing_answers(runs: int) -> list[Row]:
    """Nothing moves, but after training a share of the opposing answers can no longer be read."""
    rows = []
    had = {
        "10 propositions": (World(), 0.0),
        "propositions differ and move": (World(proposition=2.0, moves=0.5, base=(1 / 3, 1 / 3, 1 / 3)), 0.0),
        "30 % of the opposing were unread before": (World(), 0.3),
    }
    worlds = [("10 propositions", share) for share in (0.0, 0.1, 0.2, 0.4, 1.0)]
    worlds += [("propositions differ and move", 0.4), ("30 % of the opposing were unread before", 0.6)]
    for label, share in worlds:
        world, before = had[label]
        rng, found = np.random.default_rng(3), []
        for run in range(runs):
            given = answers(world, probabilities(world, rng), rng)
            for checkpoint, lost in ((0, before), (1, max(share, before))):
                unread = (given[checkpoint, ..., 2] == 1) & (rng.random(given.shape[1:3]) < lost)
                given[checkpoint][unread] = np.nan
            drift = analyse(given, world.topic_of, [0, 1], propositions=world.proposition_of, seed=run, resamples=1000)
            found.append(((drift.p_adjusted <= 0.05).any(), drift.significant.any(), drift.unscored_changed[1].any()))
        rows.append((label, f"{share:.0%}", *(f"{value:.3f}" for value in np.mean(found, axis=0))))
    return rows


def stars_kept(runs: int) -> list[Row]:
    """One topic moves by 0.3, and shares of all answers are lost whatever they say: how often its star stays."""
    rows = []
    world = shifted(World(moved_topics=1), 0.3)
    for before, after in ((0.0, 0.0), (0.3, 0.3), (0.0, 0.1), (0.1, 0.3)):
        rng, found = np.random.default_rng(4), []
        for run in range(runs):
            given = answers(world, probabilities(world, rng), rng)
            for checkpoint, lost in ((0, before), (1, after)):
                given[checkpoint][rng.random(given.shape[1:3]) < lost] = np.nan
            drift = analyse(given, world.topic_of, [0, 1], propositions=world.proposition_of, seed=run, resamples=1000)
            found.append(((drift.p_adjusted[1, 0] <= 0.05).any(), drift.topic_significant[1, 0]))
        rows.append((f"{before:.0%}", f"{after:.0%}", *(f"{value:.3f}" for value in np.mean(found, axis=0))))
    return rows


def selections(runs: int) -> list[Row]:
    """Starred topics among eleven that all drifted as far: what is measured, what is left given the star, coverage."""
    rows = []
    for label, world, drift in (
        ("10 propositions", World(), 0.1),
        ("10 propositions", World(), 0.2),
        ("10 propositions", World(), 0.3),
        ("30 propositions, 2 prompts", World(propositions=30, phrasings=2), 0.1),
        ("propositions differ and move", World(proposition=2.0, moves=0.5), 0.2),
    ):
        moved = shifted(world, drift)
        means = truth(moved)
        change = means[1] - means[0]
        true = 0.5 * np.abs(change).sum()
        seen: list[Floats] = []
        for found, _ in stages(moved, runs, 10, "propositions", 500):
            stance, topic = found.significant[1], found.topic_significant[1]
            for t in np.flatnonzero(topic):
                starred = stance[t]
                seen.append(
                    np.array(
                        [
                            found.total_variation[1, t],
                            found.topic_selected[1, t],
                            float(holds(found.total_variation_ci[1, t], true)),
                            float(holds(found.topic_selected_ci[1, t], true)),
                            holds(found.magnitude_ci[1, t], change)[starred].mean(),
                            holds(found.selected_ci[1, t], change)[starred].mean(),
                        ]
                    )
                )
        if seen:
            table = np.array(seen)
            mean = table.mean(axis=0)
            rows.append(
                (
                    label,
                    f"{true:.2f}",
                    str(len(table)),
                    f"{mean[0] / true:.2f}",
                    f"{np.median(table[:, 1]) / true:.2f}",
                    *(f"{value:.3f}" for value in mean[2:]),
                )
            )
    return rows


def powers(runs: int) -> list[Row]:
    """The least drift that is announced, and how often such a drift has a star."""
    rows = []
    for label, world in {
        "10 propositions, 5 prompts, 5 samples": World(moved_topics=1),
        "30 propositions, 2 prompts, 5 samples": World(propositions=30, phrasings=2, moved_topics=1),
        "30 propositions, 1 prompt, 1 sample": World(propositions=30, phrasings=1, samples=1, moved_topics=1),
    }.items():
        design = Design(world.topics, world.propositions, world.phrasings, world.samples)
        least = announced(design)
        found = [
            (d.topic_significant[1, 0], d.minimum_detectable[1, 0])
            for d, _ in stages(shifted(world, least), runs, 5, "propositions", 1000)
        ]
        measured = np.nanmedian([value for _, value in found])
        rows.append((label, f"{least:.3f}", f"{np.mean([star for star, _ in found]):.3f}", f"{measured:.3f}"))
    return rows


def planted_shifts(runs: int) -> list[Row]:
    """One topic of eleven drifts by a planted amount: what is measured there, and in the ten that stay."""
    rows = []
    for drift in (0.0, 0.1, 0.2, 0.3, 0.4):
        world = shifted(World(moved_topics=1), drift) if drift else World(moved_topics=0)
        found = [d for d, _ in stages(world, runs, 7, "propositions", 1000)]
        magnitude = np.mean([d.magnitude[1, 0, 0] for d in found])
        quiet = np.mean([np.abs(d.magnitude[1, 1:, 0].mean()) for d in found])
        stars = np.mean([d.topic_significant[1, 1:].any() for d in found])
        rows.append((f"{drift:.1f}", f"{magnitude:.3f}", f"{quiet:.3f}", f"{stars:.3f}"))
    return rows


def gates(runs: int) -> list[Row]:
    """How often all topics' upper ends lie within 0.1, where nothing moved and where one topic moved by just that."""
    rows = []
    for label, world in {
        "10 propositions, 5 prompts, 5 samples": World(),
        "5 propositions of one prompt": World(propositions=5, phrasings=1),
        "30 propositions, 5 prompts, 10 samples": World(propositions=30, samples=10),
    }.items():
        at_margin = shifted(replace(world, moved_topics=1), 0.1)
        shares = [
            np.mean([(d.total_variation_ci[1, :, 1] <= 0.1).all() for d, _ in stages(one, runs, 11, "propositions", 2)])
            for one in (world, at_margin)
        ]
        rows.append((label, *(f"{share:.3f}" for share in shares)))
    return rows
