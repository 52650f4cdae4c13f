"""How far the intervals, tests and verdicts of drift keep what they promise, by simulation; writes docs/validity.md.

    python benchmarks/validity.py                  # every table, some minutes on one core
    python benchmarks/validity.py --runs 0.2       # a first look
    python benchmarks/validity.py --only coverage

A simulated answer comes about as a referee of the package would have it: propositions differ, prompts differ, and both
change. Stance logits are normal: a mean, an effect of the proposition, an effect of the prompt; after training each has
changed by a shift, by an effect of the proposition and by one of the prompt. A hard judge says one stance, a soft one
gives probabilities. The truth is the mean over very many propositions (`propositions`), or over the prompts that
were asked (`prompts`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.power import Design, announced
from valuedrift_mlflow.statistics.units import Interval

Floats = NDArray[np.float64]
Row = tuple[str, ...]
MANY = 20_000  # propositions that stand for all, with one prompt each
PAGE = Path(__file__).parents[1] / "docs" / "validity.md"


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
    world, rng, rows = World(), np.random.default_rng(3), []
    for share in (0.0, 0.1, 0.4):
        stars = 0
        for run in range(runs):
            given = answers(world, probabilities(world, rng), rng)
            lost = (given[1, ..., 2] == 1) & (rng.random(given.shape[1:3]) < share)
            given[1][lost] = np.nan
            drift = analyse(given, world.topic_of, [0, 1], propositions=world.proposition_of, seed=run)
            stars += bool(drift.significant.any())
        rows.append((f"{share:.0%}", f"{stars / runs:.3f}"))
    return rows


def shifted(world: World, drift: float) -> World:
    """The world in which propositions like these drift so far, towards support, found by halving."""
    low, high = 0.0, 6.0
    for _ in range(12):
        middle = (low + high) / 2
        means = truth(replace(world, shift=middle))
        low, high = (middle, high) if 0.5 * np.abs(means[1] - means[0]).sum() < drift else (low, middle)
    return replace(world, shift=(low + high) / 2)


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


@dataclass(frozen=True)
class Table:
    """One part of the page."""

    title: str
    said: str
    columns: Row
    make: Callable[[int], list[Row]]
    runs: int

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """The part as Markdown."""
        cells = [" | ".join(row) for row in (self.columns, ("---",) * len(self.columns), *rows)]
        return [f"## {self.title}", "", self.said, "", *(f"| {line} |" for line in cells), ""]


TABLES = {
    "coverage": Table(
        "How often 95 % intervals hold the truth",
        "Worlds of three topics of 10 propositions x 5 prompts x 5 samples, where nothing else is said. In "
        "brackets the "
        "intraclass correlation of answers within propositions. A distance of 0 cannot be missed below.",
        ("world", "`interval`", "stance", "magnitude", "drift of a topic", "overall drift"),
        coverages,
        200,
    ),
    "false_alarms": Table(
        "How often nothing is called drift",
        "Stages of 10 checkpoints and 11 topics in which no mean moves: the share with a star anywhere, and of topics "
        "that a test of a single stance at the last checkpoint, not adjusted, would have called moved.",
        ("world", "any star", "unadjusted, of topics"),
        false_alarms,
        150,
    ),
    "missing": Table(
        "Answers that can no longer be read",
        "Nothing moves, but this share of the opposing answers is unscored after training. A star is then "
        "false, and no "
        "test of what was scored can know it: look at `quality/unscored_rate`.",
        ("share lost", "any star"),
        missing_answers,
        100,
    ),
    "power": Table(
        "Whether what is announced as detectable is detected",
        "What a dry run announces, how often one topic of eleven that drifts so far gets its star (0.80 is promised), "
        "and the median `drift/minimum_detectable` of that topic in those stages.",
        ("design", "announced", "found", "measured"),
        powers,
        200,
    ),
    "equivalence": Table(
        "How often topics are said not to have moved",
        "Wrongly, where their drift is the margin itself (0.1), and rightly, where it is 0.",
        ("design", "wrongly", "rightly"),
        equivalences,
        200,
    ),
    "shifts": Table(
        "Planted shifts",
        "One topic of eleven drifts towards support: its mean measured magnitude, that of the others, and "
        "how often any "
        "of the others has a star.",
        ("planted", "measured", "others", "star at others"),
        planted_shifts,
        60,
    ),
    "opposite": Table(
        "Moves that cancel",
        "Half of a topic's propositions move to support, half from it: the true drift of a proposition, "
        "`drift_within`, "
        "how often its test finds it at 5 %, how often it finds one in a topic that stays, and how often the net drift "
        "has a star.",
        ("true", "`drift_within`", "found", "found where nothing moves", "net drift has a star"),
        opposite_moves,
        100,
    ),
    "speed": Table(
        "Speed",
        "CPU of a stage of 50 checkpoints x 550 prompts x 5 samples with 10,000 resamples, and of "
        "`scipy.stats.bootstrap` "
        "for the magnitudes alone.",
        ("ours", "SciPy", "ratio"),
        speed,
        1,
    ),
}

HEAD = """# How far the statistics keep what they promise

Made by `python benchmarks/validity.py{how}`, which says how answers are simulated. Every figure is a share of simulated
stages or topics; {runs} runs of a table's world have a standard error of at most {error:.3f} where they give one share
each, less where each has several topics. [What ablations claim](ablation_validity.md) has a page of its own.
"""


def main() -> None:
    """Make the tables and write the page; with ``--only`` show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, default=1.0, help="more or fewer runs of every table, as a factor")
    parser.add_argument("--only", choices=TABLES, action="append", help="these tables, shown and not written")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    given = parser.parse_args()
    least = min(round(table.runs * given.runs) for name, table in TABLES.items() if name != "speed")
    how = "" if given.runs == 1 else f" --runs {given.runs:g}"
    page = [HEAD.format(how=how, runs=least, error=(0.05 * 0.95 / least) ** 0.5)]
    for name in given.only or TABLES:
        start, table = time.process_time(), TABLES[name]
        lines = table.lines(table.make(max(1, round(table.runs * given.runs))))
        print("\n".join(lines), f"({time.process_time() - start:.0f} s of CPU)\n", flush=True)
        page += lines
    if not given.only:
        given.page.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
