"""How far the intervals, tests and verdicts of drift keep what they promise, by simulation; writes docs/validity.md.

    python benchmarks/validity.py                  # every table, with figures, some minutes on one quiet core
    python benchmarks/validity.py --runs 0.2       # a first look
    python benchmarks/validity.py --only coverage
    python benchmarks/validity.py --keep FOLDER    # goes on where it was stopped; several processes may share it

How answers are simulated stands in `validity_sections/worlds.py`; each section of the page is a function there that
returns rows, and a `Table` here.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from validity_sections import course, coverage, figures, opposite, speed, stars
from validity_sections.page import Row, Table

PAGE = Path(__file__).parents[1] / "docs" / "validity.md"
# Pages beside this one, each made by a command of its own.
BESIDE = {
    "ablation_validity.md": "what ablations claim",
    "judge_error.md": "the judge's error in every number",
}


SECTIONS = {
    "coverage": Table(
        "How often 95 % intervals hold the truth",
        "Worlds of three topics of 10 propositions x 5 prompts x 5 samples, where nothing else is said. In brackets "
        "the intraclass correlation of answers within propositions.",
        ("world", "`interval`", "stance", "magnitude", "drift of a topic", "overall drift"),
        coverage.coverages,
        400,
        figures.coverage,
        "A distance near 0 is held in more than 95 of 100 cases and has to be: it cannot be missed below 0, and a mean "
        "of distances, all of which noise makes larger, can hardly be missed above. Which of its stances moved, and so "
        "how much noise adds, is not known there: the lower end allows for what adds most, the upper one for what adds "
        "least. Where topics moved by much more than their noise either end is missed in 2.5 %. What noise adds to an "
        "overall drift at its upper end is taken off it; that at the estimate itself may be more than there is.",
    ),
    "false_alarms": Table(
        "How often nothing is called drift",
        "Stages of 10 checkpoints and 11 topics in which no mean moves: the share with a star anywhere, and of topics "
        "that a test of a single stance at the last checkpoint, not adjusted, would have called moved.",
        ("world", "any star", "unadjusted, of topics"),
        stars.false_alarms,
        300,
    ),
    "missing": Table(
        "Answers that can no longer be read",
        "Nothing moves, but this share of the opposing answers is unscored after training. Shares of stages in which "
        "the tests of scored answers alone would give a star, in which a star is given, and in which the share of "
        "unscored answers is seen to have changed.",
        ("world", "share lost", "by scored answers alone", "any star", "seen to have changed"),
        stars.missing_answers,
        500,
    ),
    "kept": Table(
        "What that costs where answers are lost at random",
        "One topic of eleven drifts by 0.3, and shares of all answers are unscored whatever they say: how often its "
        "test would give it a star, and how often it has one.",
        ("lost before", "lost after", "by scored answers alone", "star"),
        stars.stars_kept,
        100,
    ),
    "selection": Table(
        "Topics with a star",
        "All eleven topics drifted as far; these are the figures of those that got a star. Ratios of what is said to "
        "what is true: the mean of `drift`, the median of `drift_selected`. Coverage of the plain intervals and of "
        "those given the star, of the topic's drift and of the starred stances' magnitudes.",
        (
            "world",
            "true",
            "stars",
            "`drift`",
            "`drift_selected`",
            "plain, drift",
            "given the star, drift",
            "plain, magnitude",
            "given the star, magnitude",
        ),
        stars.selections,
        75,
    ),
    "power": Table(
        "Whether what is announced as detectable is detected",
        "What a dry run announces, how often one topic of eleven that drifts so far gets its star (0.80 is promised), "
        "and the median `drift/minimum_detectable` of that topic in those stages.",
        ("design", "announced", "found", "measured"),
        stars.powers,
        300,
    ),
    "equivalence": Table(
        "How often topics are said not to have moved",
        "Wrongly, where their drift is the margin itself (0.1), and rightly, where it is 0.",
        ("design", "wrongly", "rightly"),
        coverage.equivalences,
        200,
    ),
    "gate": Table(
        "How often a gate on the upper ends passes",
        "All `drift_ci_high/TOPIC` of eleven topics within 0.1, where nothing moved, and where one topic moved by 0.1.",
        ("design", "nothing moved", "one topic moved by 0.1"),
        stars.gates,
        100,
    ),
    "shifts": Table(
        "Planted shifts",
        "One topic of eleven drifts towards support: its mean measured magnitude, that of the others, and "
        "how often any of the others has a star.",
        ("planted", "measured", "others", "star at others"),
        stars.planted_shifts,
        60,
    ),
    "opposite": Table(
        "Moves that cancel",
        "Half of a topic's propositions move to support, half from it: the true drift of a proposition, "
        "`drift_within`, how often its test finds it at 5 %, how often it finds one in a topic that stays, and how "
        "often the net drift has a star.",
        ("true", "`drift_within`", "found", "found where nothing moves", "net drift has a star"),
        opposite.opposite_moves,
        200,
    ),
    "arrival": Table(
        "When stances arrive",
        "Stages of ten checkpoints along a known path. Share of topics whose time is defined, then the true time / the "
        "median that is read (how often its interval holds it, the interval's median width) by `drift_time_50` and "
        "`drift_time_90`, and the median of `drift_time` by the rule `extreme_interval`.",
        ("path", "drift", "defined", "50 %", "90 %", "`extreme_interval`"),
        course.arrivals,
        100,
        figures.arrival,
        "The rule `extreme_interval` looks for the first checkpoint inside an interval, and so depends on how wide it "
        "is: on the number of propositions and samples, and not on the stage alone.",
    ),
    "overshoot": Table(
        "Going beyond the end",
        "Support rises by a drift of 0.2 and beyond it by a planted excess, and comes back. The largest excess as it "
        "stands in the measured means (all noise where none is planted), `overshoot`, how often its interval holds the "
        "truth, and how often a stage of three topics shows one.",
        ("planted", "largest measured", "`overshoot`", "held", "shown in a stage"),
        course.overshoots,
        100,
    ),
    "checkpoints": Table(
        "The analysis at every checkpoint",
        "At every checkpoint the newest is told of, tested with all steps so far: they are one family. CPU of all "
        "these analyses together (11 topics x 50 prompts x 5 samples), and by response that the stage generates.",
        ("checkpoints", "CPU of the stage", "responses", "by response"),
        speed.checkpoints,
        1,
    ),
    "speed": Table(
        "Speed",
        "CPU of a stage of 50 checkpoints x 550 prompts x 5 samples with 10,000 resamples, and of "
        "`scipy.stats.bootstrap` for the magnitudes alone.",
        ("ours", "SciPy", "ratio"),
        speed.speed,
        1,
    ),
}

HEAD = """# How far the statistics keep what they promise

Made by `python benchmarks/validity.py{how}`; `benchmarks/validity_sections/worlds.py` says how answers are simulated.
Figures are shares of simulated stages or topics. Every table says how many runs it has: where each gives one share, one
of 0.95 has a standard error of {twenty:.3f} with 20 runs, of {sixty:.3f} with 60; less where each has several topics.
"""


def made(name: str, runs: int, keep: Path | None) -> list[Row]:
    """The rows of a table, as they were kept or newly made."""
    file = keep / f"{name}-{runs}.json" if keep else None
    if file and file.exists():
        return [tuple(row) for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = SECTIONS[name].make(runs)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def main() -> None:
    """Make the tables and figures and write the page; with ``--only`` show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, default=1.0, help="more or fewer runs of every table, as a factor")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these tables, shown and not written")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the rows of each table, and gives them back")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write; figures go beside it")
    given = parser.parse_args()
    how = "" if given.runs == 1 else f" --runs {given.runs:g}"
    page = [HEAD.format(how=how, twenty=(0.05 * 0.95 / 20) ** 0.5, sixty=(0.05 * 0.95 / 60) ** 0.5)]
    beside = [f"[{said}]({name})" for name, said in BESIDE.items() if (given.page.parent / name).exists()]
    page += [f"Pages of the same kind: {', '.join(beside)}.", ""] if beside else []
    for name in given.only or SECTIONS:
        start, table = time.process_time(), SECTIONS[name]
        runs = max(1, round(table.runs * given.runs)) if table.runs > 1 else 1
        rows = made(name, runs, given.keep)
        picture = f"validity_{name}.svg"
        if table.figure and not given.only:
            table.figure(rows, given.page.parent / picture)
        lines = table.lines(rows, picture, runs)
        print("\n".join(lines), f"({time.process_time() - start:.0f} s of CPU)\n", flush=True)
        page += lines
    if not given.only:
        given.page.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
