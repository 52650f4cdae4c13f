"""How far the statistics of ablations keep what they promise, by simulation; writes docs/ablation_validity.md.

    python benchmarks/ablation_validity.py              # every table, some minutes on one core
    python benchmarks/ablation_validity.py --runs 0.2   # a first look
    python benchmarks/ablation_validity.py --only trends

Answers come about as in benchmarks/validity.py: stance logits have effects of propositions and prompts. All cells start
from one model, measured once. A training adds to the logit of support: what its dose does, what its seed does at every
dose, and what it alone does; and it moves every proposition its own way. Beside each test stands the one that was used
before it, on the same simulated cells: doses shuffled across seeds, Welch's test over seeds, a share of drifts with the
noise taken off, intervals of the cells widened by the spread of seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, permutation_test, rankdata, ttest_ind
from validity_sections.page import Row as TableRow
from validity_sections.page import Table

from valuedrift_mlflow.pipeline.ablation_summary import Dose, Row, over_seeds, summarise
from valuedrift_mlflow.pipeline.directions import HARDLY, directions
from valuedrift_mlflow.statistics.ablation_power import MODERATE, announced, simulated
from valuedrift_mlflow.statistics.distance import above, noise
from valuedrift_mlflow.statistics.drift import analyse
from valuedrift_mlflow.statistics.paired import Changes, changes, compare, ratio
from valuedrift_mlflow.statistics.power import Design
from valuedrift_mlflow.statistics.trends import trend
from valuedrift_mlflow.statistics.units import change_error, prompt_means

Floats = NDArray[np.float64]
MANY = 40_000  # propositions that stand for all
PAGE = Path(__file__).parents[1] / "docs" / "ablation_validity.md"
GAPS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class World:
    """A suite, and how trainings vary. Effects are standard deviations of logits."""

    topics: int = 4
    propositions: int = 10
    phrasings: int = 5
    samples: int = 2
    block: float = 0.0  # what a seed adds at every dose, as a share of what the dose adds
    own: float = 0.1  # what a training adds of its own, as such a share
    moves: float = 0.3  # how far propositions move each their own way, in all cells alike, as such a share
    moves_cell: float = 0.15  # in all trainings of one cell
    moves_own: float = 0.15  # in one training alone

    @property
    def units(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) the proposition and the topic of each prompt."""
        numbers = np.arange(self.topics * self.propositions).repeat(self.phrasings)
        return numbers, numbers // self.propositions


@dataclass(frozen=True, eq=False)
class Simulated:
    """C cells of S seeds: their changes by proposition, answers (1 + C S, N, samples, 3), and measured drift (C, S)."""

    cells: list[list[Changes]]
    answers: Floats
    drift: Floats


def ablation(world: World, shifts: Sequence[float], seeds: int, rng: np.random.Generator) -> Simulated:
    """TableRow whose trainings add these shifts to the logit of support."""
    numbers, topics = world.units
    units = world.topics * world.propositions
    logits = np.log(np.array([0.3, 0.5, 0.2])) + rng.standard_normal((units, 3))[numbers]
    logits = logits + 0.5 * rng.standard_normal((len(numbers), 3))
    blocks = world.block * rng.standard_normal(seeds)
    everywhere = world.moves * rng.standard_normal((units, 3))
    ends = [logits]
    for shift in shifts:
        shared = shift * (everywhere + world.moves_cell * rng.standard_normal((units, 3)))
        for block in blocks:
            own = world.moves_own * shift * rng.standard_normal((units, 3))
            end = logits + (shared + own)[numbers]
            end[:, 0] += shift * (1 + block + world.own * rng.standard_normal())
            ends.append(end)
    chances = softmax(np.stack(ends))
    drawn = rng.random((*chances.shape[:2], world.samples, 1)) > chances.cumsum(axis=-1)[:, :, None, :2]
    answers = np.eye(3)[drawn.sum(axis=-1)]
    means = prompt_means(answers)
    runs = [changes(means[0], end, numbers, topics) for end in means[1:]]
    of_topics = np.stack([means[:, topics == t].mean(axis=1) for t in range(world.topics)], axis=1)
    drift = 0.5 * np.abs(of_topics[1:] - of_topics[0]).sum(axis=-1).mean(axis=-1)
    cells = [runs[start : start + seeds] for start in range(0, len(runs), seeds)]
    return Simulated(cells, answers, drift.reshape(len(shifts), seeds))


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    exponentials = np.exp(logits)
    chances: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return chances


@cache
def propositions_like_these() -> tuple[Floats, Floats]:
    """Logits of very many prompts, one of each proposition, and where each of them moves."""
    rng = np.random.default_rng(0)
    effects = rng.standard_normal((MANY, 3)) + 0.5 * rng.standard_normal((MANY, 3))
    return np.log(np.array([0.3, 0.5, 0.2])) + effects, rng.standard_normal((MANY, 3))


@cache
def true_drift(world: World, shift: float) -> tuple[float, float]:
    """What very many propositions and seeds come to: mean total variation, and drift above noise."""
    logits, directions_moved = propositions_like_these()
    before = softmax(logits).mean(axis=0)
    spread = math.hypot(world.moves, world.moves_cell, world.moves_own)
    moved = logits + spread * shift * directions_moved
    places, weights = np.polynomial.hermite_e.hermegauss(5)
    distances, squares = [], []
    for place in places:
        end = moved.copy()
        end[:, 0] += shift * (1 + math.hypot(world.block, world.own) * place)
        change = softmax(end).mean(axis=0) - before
        distances.append(0.5 * np.abs(change).sum())
        squares.append(0.5 * change @ change)
    total = weights.sum()
    return float(weights @ distances / total), math.sqrt(float(weights @ squares / total))


@cache
def shift_of(world: World, drift: float, *, kind: int = 1) -> float:
    """The shift whose drift (0: total variation, 1: above noise) is this, found by halving."""
    low, high = 0.0, 8.0
    for _ in range(11):
        middle = (low + high) / 2
        low, high = (middle, high) if true_drift(world, middle)[kind] < drift else (low, middle)
    return (low + high) / 2


def rows_of(world: Simulated, series: str, doses: Sequence[float]) -> list[Row]:
    """The cells as an ablation has them."""
    return [
        Row(series, series, (Dose("gap", "gap", dose, f"{dose:g}"),), seed, "", "", float(drift), changes=run)
        for dose, cell, drifts in zip(doses, world.cells, world.drift, strict=True)
        for seed, (run, drift) in enumerate(zip(cell, drifts, strict=True))
    ]


# What was used before ------------------------------------------------------------------------------------------------


def shuffled_across_seeds(drift: Floats) -> float:
    """P of Spearman's correlation over all runs, by shuffling the doses of all seeds at once."""
    doses, seeds = drift.shape
    x, y = rankdata(np.repeat(np.arange(doses), seeds)), rankdata(drift.ravel())
    x, y = x - x.mean(), y - y.mean()
    found = permutation_test(
        (y,),
        lambda shuffled, axis: np.sum(x * shuffled, axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=999,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def share_before(world: World, simulated_cells: Simulated) -> float:
    """Drift of the first cell as a share of the last one's, both with the noise of sampling taken off."""
    numbers, topics = world.units
    seeds = simulated_cells.drift.shape[1]

    def beyond(cell: int) -> float:
        floors = []
        for run in range(cell * seeds, (cell + 1) * seeds):
            pair = simulated_cells.answers[[0, run + 1]]
            own = [change_error(pair[:, topics == t], numbers[topics == t], "prompts") for t in range(world.topics)]
            floors.append(np.mean([noise(error)[1] for error in own]))
        return float(above(simulated_cells.drift[cell].mean(), np.mean(floors)))

    return beyond(0) / max(beyond(-1 % len(simulated_cells.cells)), 1e-9)


def interval_before(world: World, simulated_cells: Simulated) -> tuple[float, float]:
    """The mean of the first cell with the intervals of its runs, widened by the spread of its seeds."""
    numbers, topics = world.units
    names = [str(t) for t in topics], [str(number) for number in numbers]
    drifts, ends = [], []
    for run in range(simulated_cells.drift.shape[1]):
        pair = simulated_cells.answers[[0, run + 1]]
        found = analyse(pair, names[0], [0, 1], propositions=names[1], resamples=2)
        drifts.append(float(found.overall[-1]))
        ends.append((float(found.overall_ci[-1, 0]), float(found.overall_ci[-1, 1])))
    _, low, high = over_seeds(drifts, ends)
    return low, high


# Tables --------------------------------------------------------------------------------------------------------------


def means(runs: int) -> list[TableRow]:
    """Coverage of the interval of the mean drift over seeds, and its width."""
    rows = []
    for label, world in {"alike": World(), "apart": World(own=0.3)}.items():
        for shift in (0.0, 0.3, 1.0, 2.0):
            truth, shown = true_drift(world, shift)[0], []
            for seeds in (2, 3, 5):
                rng, held, widths = np.random.default_rng(seeds), [], []
                for _ in range(runs):
                    [summary] = summarise(rows_of(ablation(world, [shift], seeds, rng), "dpo", [1.0]))
                    held.append(summary.low - 1e-9 <= truth <= summary.high)
                    widths.append(summary.high - summary.low)
                shown.append(f"{np.mean(held):.3f} ({np.median(widths):.2f})")
            rng, before = np.random.default_rng(3), []
            for _ in range(max(20, runs // 3)):
                before.append(interval_before(world, ablation(world, [shift], 3, rng)))
            old = np.mean([low - 1e-9 <= truth <= high for low, high in before])
            width = np.median([high - low for low, high in before])
            rows.append((f"{truth:.2f}, seeds {label}", *shown, f"{old:.3f} ({width:.2f})"))
    return rows


def pairs(runs: int) -> list[TableRow]:
    """Comparisons of two cells: coverage of the difference, how often it is told, and by Welch's test."""
    rows = []
    for label, world in {"own": World(), "shared": World(block=0.3, own=0.05)}.items():
        for first, second in ((0.0, 0.0), (0.2, 0.2), (0.1, 0.0), (0.2, 0.0), (0.2, 0.12), (0.3, 0.2)):
            shifts = [shift_of(world, drift) if drift else 0.0 for drift in (first, second)]
            truth = [true_drift(world, shift)[1] for shift in shifts]
            for seeds in (3, 5):
                rng, found = np.random.default_rng(seeds), []
                for _ in range(runs):
                    own = ablation(world, shifts, seeds, rng)
                    told = compare(*own.cells)
                    welch = ttest_ind(*own.drift, equal_var=False).pvalue
                    held = told.difference.low <= truth[0] - truth[1] <= told.difference.high
                    found.append((held, told.p_value <= 0.05, welch <= 0.05))
                shares = np.mean(found, axis=0)
                name = f"{first:.2f} and {second:.2f}, seeds {label}"
                rows.append((name, str(seeds), *(f"{share:.3f}" for share in shares)))
    return rows


def trends(runs: int) -> list[TableRow]:
    """How often a trend over three doses is told: within seeds, and as before by shuffling across them."""
    rows = []
    for label, world in {"own": World(), "shared": World(block=0.5, own=0.05)}.items():
        for last, middle in ((0.0, 0.0), (0.2, 0.2), (0.2, 0.25), (0.2, 0.3)):
            first = shift_of(world, last) if last else 0.0
            top = shift_of(world, middle) if middle else 0.0
            shifts = [first, (first + top) / 2, top]
            shown: list[str] = []
            for seeds in (3, 5):
                rng, found = np.random.default_rng(seeds), []
                for _ in range(runs):
                    own = ablation(world, shifts, seeds, rng)
                    told = trend(own.cells, own.drift.T)
                    before = shuffled_across_seeds(own.drift) <= 0.05
                    found.append((told.p_value <= 0.05, told.p_value <= 0.05 / 18, told.p_shuffled <= 0.05, before))
                shown += [f"{share:.3f}" for share in np.mean(found, axis=0)]
            rows.append((f"{last:.2f} to {middle:.2f}, seeds {label}", *shown))
    return rows


def ratios(runs: int) -> list[TableRow]:
    """What is told of a small drift beside a large one, at and off the threshold."""
    rows, world = [], World()
    large = shift_of(world, 0.4)
    for share in (0.0, 0.125, HARDLY, 0.4, 0.6):
        small = shift_of(world, 0.4 * share) if share else 0.0
        for seeds in (3, 5):
            rng, found = np.random.default_rng(seeds), []
            for _ in range(runs):
                own = ablation(world, [small, large], seeds, rng)
                told = ratio(*own.cells, HARDLY)
                sure = told.p_value <= 0.05
                held = told.share.low <= share + 1e-9 and share <= told.share.high
                before = share_before(world, own) < HARDLY
                found.append((held, sure and told.below, sure and not told.below, not sure, before))
            rows.append((f"{share:.3f}", str(seeds), *(f"{part:.3f}" for part in np.mean(found, axis=0))))
    return rows


SERIES = ("dpo", "simpo", "kto", "orpo", "anchored_dpo", "ppo", "grpo", "rloo")


def families(runs: int) -> list[TableRow]:
    """Whole ablations of eight series, three doses and three seeds: how often anything false is claimed."""
    rows, world = [], World(topics=3)
    moved = shift_of(world, 0.2)
    cases = {
        "nothing moves": [0.0, 0.0, 0.0],
        "all move, no dose matters": [moved] * 3,
        "drift grows with the dose, alike for all": [moved / 2, moved, 1.5 * moved],
    }
    for label, shifts in cases.items():
        rng, found = np.random.default_rng(1), []
        share = true_drift(world, shifts[0])[1] / max(true_drift(world, shifts[-1])[1], 1e-9)
        rises = shifts[-1] > shifts[0]
        for _ in range(runs):
            own = {series: ablation(world, shifts, 3, rng) for series in SERIES}
            claims = false_and_true(own, share if shifts[0] else math.nan, rises)
            found.append((*claims, false_before(own, rises)))
        shares = np.mean(found, axis=0)
        rows.append((label, *(f"{part:.3f}" if np.isfinite(part) else "" for part in shares)))
    return rows


def false_and_true(own: dict[str, Simulated], share: float, rises: bool) -> tuple[bool, float]:
    """Whether any line claims what is not so, and the share of lines of true trends that are told."""
    false, told = False, []
    for direction in directions([row for series, cells in own.items() for row in rows_of(cells, series, GAPS)]):
        for line in direction.lines:
            if direction.paper.startswith("Pairs without"):
                right: bool | None = None if math.isnan(share) else share < HARDLY
            else:
                right = True if rises and direction.paper.startswith("Drift grows") else None
            false |= line.told is not None and line.told is not right
            if direction.paper.startswith("Drift grows") and rises:
                told.append(line.told is True)
    return false, float(np.mean(told)) if told else math.nan


def false_before(own: dict[str, Simulated], rises: bool) -> bool:
    """Whether the tests as they were claim a trend or an order that is not there; shares are left out of account."""
    p_values = [shuffled_across_seeds(cells.drift) for cells in own.values()]
    trends_told = bool((false_discovery_control(p_values) <= 0.05).any())
    order = [("dpo", "simpo"), ("simpo", "ppo")]
    welch = [ttest_ind(own[a].drift[-1], own[b].drift[-1], equal_var=False).pvalue <= 0.05 for a, b in order]
    return any(welch) or (trends_told and not rises)


def announcements(runs: int) -> list[TableRow]:
    """What a dry run announces, and how often that is found, in the world that it assumes."""
    rows = []
    for label, design, seeds in (
        ("11 topics x 10 propositions x 5 prompts x 2 samples", Design(11, 10, 5, 2), 3),
        ("11 topics x 10 propositions x 5 prompts x 2 samples", Design(11, 10, 5, 2), 5),
        ("3 topics x 10 propositions x 2 prompts x 2 samples", Design(3, 10, 2, 2), 3),
    ):
        least, rng, found = announced(design, seeds, 3), np.random.default_rng(2), []
        for _ in range(runs):
            two = compare(*simulated(design, np.array([MODERATE + least.further, MODERATE]), seeds, rng))
            line = simulated(design, np.linspace(0, least.largest, 3), seeds, rng)
            found.append((two.p_value <= 0.05, trend(line, np.full((seeds, 3), np.nan)).p_value <= 0.05))
        shares = np.mean(found, axis=0)
        numbers = (f"{least.difference:.3f}", f"{shares[0]:.3f}", f"{least.rise:.3f}", f"{shares[1]:.3f}")
        rows.append((label, str(seeds), *numbers))
    return rows


TABLES = {
    "families": Table(
        "Whole ablations: how often anything false is claimed",
        "Eight algorithms, three gaps, three seeds, three topics; 18 lines are one family (Holm). Before: trends with "
        "the false discovery rate held over series, Welch's test of neighbours, each at 5 %.",
        ("cells", "any false claim", "true trends told", "any false trend or order, before"),
        families,
        200,
    ),
    "trends": Table(
        "Trends over three doses",
        "How often a trend is told where drift above noise goes from the first figure to the second. `one` is a trend "
        "tested alone, `of 18` one among 18 lines. `Page` (shuffles within seeds) and `before` (shuffles across seeds) "
        "are alone too, and for these prompts, which other propositions may not bear out. Seeds are "
        '"shared" where a seed adds to all of its doses alike.',
        ("drift", "3 seeds: one", "of 18", "Page", "before", "5 seeds: one", "of 18", "Page", "before"),
        trends,
        200,
    ),
    "pairs": Table(
        "Two cells",
        "How often the interval of the difference of drift holds the truth, how often a difference is told at 5 %, and "
        "by Welch's test of the measured drifts.",
        ("drift above noise", "seeds", "interval holds", "told", "Welch, before"),
        pairs,
        200,
    ),
    "ratios": Table(
        '"Hardly moves"',
        "A drift beside one of 0.4: how often Fieller's interval holds the true share, and what is told at 5 % against "
        "a threshold of a quarter. Before: the share that was measured, on whichever side it fell.",
        ("true share", "seeds", "interval holds", "hardly moves", "moves", "cannot tell", '"hardly moves", before'),
        ratios,
        200,
    ),
    "means": Table(
        "Mean drift over seeds",
        "How often the 95 % interval of a choice holds its mean drift (total variation), and the interval's median "
        "width. Seeds are alike (a tenth of a training's effect) or apart (three tenths). Before: intervals of the "
        "cells, averaged, and the spread of seeds added as squares.",
        ("drift", "2 seeds", "3 seeds", "5 seeds", "3 seeds, before"),
        means,
        200,
    ),
    "announced": Table(
        "Whether what is announced as detectable is found",
        "What the dry run of `ablate` announces for one comparison at a time, and how often it is found (0.80 is "
        "promised): a difference between cells that drift by about 0.2, and a rise from 0 over three doses. It comes "
        "from 60 simulated ablations; with three seeds power grows slowly, so that it may be off by a sixth.",
        ("design", "seeds", "difference", "found", "rise", "found"),
        announcements,
        200,
    ),
}

HEAD = """# How far the statistics of ablations keep what they promise

Made by `python benchmarks/ablation_validity.py{how}`, which says how cells are simulated. Unless a table says otherwise
a cell is measured on four topics of 10 propositions x 5 prompts x 2 samples. Every figure is a share of {runs}
simulated ablations: one of 0.05 or 0.95 has a standard error of {error:.3f}. Intervals and tests are for other seeds
and other propositions.
"""


def main() -> None:
    """Make the tables and write the page; with ``--only`` show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, default=1.0, help="more or fewer runs of every table, as a factor")
    parser.add_argument("--only", choices=TABLES, action="append", help="these tables, shown and not written")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    given = parser.parse_args()
    runs = max(1, round(200 * given.runs))
    how = "" if given.runs == 1 else f" --runs {given.runs:g}"
    page = [HEAD.format(how=how, runs=runs, error=math.sqrt(0.05 * 0.95 / runs))]
    for name in given.only or TABLES:
        start, table = time.process_time(), TABLES[name]
        lines = table.lines(table.make(max(1, round(table.runs * given.runs))))
        print("\n".join(lines), f"({time.process_time() - start:.0f} s of CPU)\n", flush=True)
        page += lines
    if not given.only:
        given.page.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
