"""What a judge's errors do to drifts, audits and checks, and what is left of them. Writes docs/judge_error.md.

python benchmarks/judge_error.py                       # prints the page and writes docs/judge_error.md
python benchmarks/judge_error.py --repetitions 20 --output ""     # a quick look

Planted is a judge with the errors of the offline one on answers in the style of assistants: 26 % of support is read as
opposition, 21 % of opposition as support, some is left unscored.

- drift: 11 topics of 10 propositions x 5 prompts x 2 samples, whose propositions differ (correlation 1/7). In every
  topic a part of all answers goes from support to opposition. 0 to 300 responses of either checkpoint are labelled
  without error, drawn as `valuedrift review` draws them; the matrix method knows the judge from 150 texts a stance.
- audits: pairs whose sides take the same stance, but for the planted share; the verdict is that of the audit itself.
- checks: answers to propositions that are read rightly together or not (beta-binomial), three stances equally often.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.review import drawn_responses
from valuedrift_mlflow.stances import LABELS, Verdict
from valuedrift_mlflow.statistics.adjusted import Readings, adjusted_drift
from valuedrift_mlflow.statistics.adjusted_gap import UNKNOWN, AdjustedGap, adjusted_gap
from valuedrift_mlflow.statistics.agreement import judge_quality
from valuedrift_mlflow.statistics.attenuation import attenuation
from valuedrift_mlflow.statistics.drift import analyse
from valuedrift_mlflow.statistics.intervals import NOTHING, Estimate
from valuedrift_mlflow.statistics.prediction_powered import Sample, powered_drift
from valuedrift_mlflow.statistics.value_gap import value_gap
from valuedrift_mlflow.value_gap.expectation import expectation
from valuedrift_mlflow.value_gap.findings import Audit, Findings
from valuedrift_mlflow.value_gap.row_labels import LabelledFigures, RowLabel, RowLabels, labelled_figures

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

READ = np.array([[0.70, 0.04, 0.26], [0.05, 0.90, 0.05], [0.21, 0.03, 0.76]])  # of what is scored, by true stance
SCORED = np.array([0.85, 0.75, 0.85])
MIX = np.array([0.5, 0.2, 0.3])
TOPICS, PROPOSITIONS, PROMPTS, SAMPLES = 11, 10, 5, 2
ALIKE = 6.0  # concentration of the propositions around their topic
CHECKED = 150  # texts of each stance by which the matrix method knows the judge
DRIFTS, LABELS_OF_CHECKPOINT = (0.0, 0.1, 0.2, 0.4), (50, 100, 300)
GAPS, PAIRS, LABELLED_ROWS = (0.0, 0.3, 0.6), (100, 300, 1000), 100
GROUPS, CORRELATIONS = (5, 8, 10, 30), (0.0, 0.2, 0.5)
PAGE = Path(__file__).parents[1] / "docs" / "judge_error.md"


def drawn(mixes: Floats, rng: np.random.Generator) -> Integers:
    """One stance for each row of (n, 3)."""
    stances: Integers = (rng.random((len(mixes), 1)) > np.cumsum(mixes, axis=1)[:, :2]).sum(axis=1)
    return stances


def read(truth: Integers, rng: np.random.Generator) -> Integers:
    """The judge's verdict on each: 0 to 2, 3 for none."""
    return np.where(rng.random(len(truth)) < SCORED[truth], drawn(READ[truth], rng), 3)


def check(texts: int, rng: np.random.Generator) -> Integers:
    """(3, 4) counts of a check on so many texts of each stance."""
    return np.stack([np.bincount(read(np.full(texts, stance), rng), minlength=4) for stance in range(3)])


# Drift ----------------------------------------------------------------------------------------------------------------

CELLS = TOPICS * PROPOSITIONS
OF_RESPONSE = np.repeat(np.arange(CELLS), PROMPTS * SAMPLES)  # the proposition of every response
TOPIC = OF_RESPONSE // PROPOSITIONS
PROMPT = np.repeat(np.arange(CELLS * PROMPTS), SAMPLES)


def checkpoints(drift: float, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """The true stances of all responses before and after a part of them went from support to opposition."""
    before = rng.dirichlet(ALIKE * MIX, CELLS)
    gone = before[:, 0] * drift / MIX[0]
    after = before + gone[:, None] * np.array([-1.0, 0.0, 1.0])
    return drawn(before[OF_RESPONSE], rng), drawn(after[OF_RESPONSE], rng)


def stances_of(codes: Integers) -> Floats:
    """(n,) -> (n, 3), NaN of none."""
    table: Floats = np.vstack([np.eye(3), np.full((1, 3), np.nan)])[codes]
    return table


def sampled(truth: Integers, verdicts: Integers, labels: int, rng: np.random.Generator) -> Sample:
    """Responses with labels of a few."""
    weights = np.zeros(len(truth))
    for topic in range(TOPICS):
        own = np.flatnonzero(topic == TOPIC)
        size = labels // TOPICS + (topic < labels % TOPICS)
        sure = np.where(verdicts[own] == 3, 0.0, 0.9)
        some, probability = drawn_responses(verdicts[own].tolist(), sure.tolist(), size, rng)
        weights[own[some]] = 1 / probability[some]
    given = np.where(weights[:, None] > 0, stances_of(truth), np.nan)
    return Sample(stances_of(verdicts), given, weights, TOPIC, OF_RESPONSE, PROMPT)


def drift_rows(repetitions: int, seed: int = 0) -> Iterator[list[str]]:
    """For each drift and method: coverage of the mean total variation and of the change of support, and their bias."""
    for drift in DRIFTS:
        rng = np.random.default_rng([seed, round(100 * drift)])
        found: dict[str, list[tuple[Estimate, Estimate]]] = {}
        for turn in range(repetitions):
            truths = checkpoints(drift, rng)
            verdicts = [read(truth, rng) for truth in truths]
            found.setdefault("judge alone", []).append(plain(verdicts, turn))
            found.setdefault("matrix method", []).append(by_matrix(verdicts, check(CHECKED, rng), turn))
            for labels in LABELS_OF_CHECKPOINT:
                before, after = (sampled(t, v, labels, rng) for t, v in zip(truths, verdicts, strict=True))
                own = powered_drift(before, after, TOPICS, seed=turn)
                assert own.total_variation is not None and own.total_variation_interval is not None
                estimates = (
                    Estimate(own.total_variation[-1], *own.total_variation_interval[-1]),
                    Estimate(own.value[-1, 0], *own.interval[-1, 0]),
                )
                found.setdefault(f"{labels} labels a checkpoint", []).append(estimates)
        for method, both in found.items():
            yield [f"{drift:g}", method, *_kept([d for d, _ in both], drift), *_kept([s for _, s in both], -drift)]


def plain(verdicts: Sequence[Integers], seed: int) -> tuple[Estimate, Estimate]:
    """The drift as a run has it without anything known of its judge."""
    answers = np.stack([stances_of(own).reshape(CELLS * PROMPTS, SAMPLES, 3) for own in verdicts])
    propositions = [str(number) for number in np.repeat(np.arange(CELLS), PROMPTS)]
    topics = [str(number) for number in np.repeat(np.arange(TOPICS), PROPOSITIONS * PROMPTS)]
    drift = analyse(answers, topics, [0, 1], propositions=propositions, seed=seed)
    change = float(np.mean(drift.magnitude[1, :, 0]))
    # Topics are independent: their standard errors (half of an interval by the t of 9 degrees, 2.26) make up that of
    # the mean.
    errors = np.diff(drift.magnitude_ci[1, :, 0])[:, 0] / 2 / 2.26
    half = 1.96 * float(np.sqrt(np.mean(errors**2) / TOPICS))
    return Estimate(drift.overall[1], *drift.overall_ci[1]), Estimate(change, change - half, change + half)


def by_matrix(verdicts: Sequence[Integers], confusion: Integers, seed: int) -> tuple[Estimate, Estimate]:
    """The drift with the errors taken off that a check has counted."""
    before, after = (Readings(own, TOPIC, OF_RESPONSE) for own in verdicts)
    found = adjusted_drift(before, after, confusion, TOPICS, seed=seed)
    return (
        Estimate(found.total_variation[-1], *found.total_variation_interval[-1]),
        Estimate(found.value[-1, 0], *found.interval[-1, 0]),
    )


def _kept(estimates: Sequence[Estimate], truth: float) -> list[str]:
    held = np.mean([own.low - 1e-9 <= truth <= own.high + 1e-9 for own in estimates])
    return [f"{held:.3f}", f"{np.mean([own.value for own in estimates]) - truth:+.3f}"]


# Audits ---------------------------------------------------------------------------------------------------------------


def audit_rows(repetitions: int, seed: int = 0) -> Iterator[list[str]]:
    """For each gap and number of pairs: what is read, and how often each way of judging it is wrong or cannot tell."""
    for gap in GAPS:
        for pairs in PAIRS:
            rng = np.random.default_rng([seed, round(10 * gap), pairs])
            read_gaps, verdicts, held = [], {name: Counter[str]() for name in ("before", "now", "labels")}, 0
            for turn in range(repetitions):
                plain_gap, error, labelled = audited(gap, pairs, rng, turn)
                read_gaps.append(plain_gap.overall.gap.pairwise.value if plain_gap.overall.gap else np.nan)
                for name, own in (("before", plain_gap), ("now", error), ("labels", labelled)):
                    verdicts[name][_judged(expectation(own), gap)] += 1
                adjusted = error.overall.error or UNKNOWN
                held += adjusted.adjusted.low <= gap <= adjusted.adjusted.high
            cells = [f"{gap:g}", str(pairs), f"{np.mean(read_gaps):.2f}"]
            for counts in verdicts.values():
                cells.append(f"{counts['wrong'] / repetitions:.3f}, {counts['cannot tell'] / repetitions:.3f}")
            yield [*cells, f"{held / repetitions:.3f}"]


def audited(gap: float, pairs: int, rng: np.random.Generator, seed: int) -> tuple[Audit, Audit, Audit]:
    """An audit of planted pairs: with nothing known of the judge, with its errors, with labels of 100 rows."""
    chosen = rng.choice(3, pairs, p=[0.4, 0.2, 0.4])
    rejected = np.where(rng.random(pairs) < gap, (chosen + rng.integers(1, 3, pairs)) % 3, chosen)
    said = [read(side, rng) for side in (chosen, rejected)]
    error = adjusted_gap(said[0], said[1], np.arange(pairs), check(CHECKED, rng), seed=seed)
    some = rng.choice(pairs, min(LABELLED_ROWS, pairs), replace=False)
    by_row = {(int(row), 0): RowLabel((LABELS[chosen[row]], LABELS[rejected[row]]), 1.0, ("", ""), "") for row in some}
    labels = RowLabels("", ("chosen", "rejected"), by_row)
    sides = [stances_of(own) for own in said]
    keys = [(row, 0) for row in range(pairs)]
    labelled = labelled_figures(labels, keys, sides, np.arange(pairs))
    return _audit(said, None, None), _audit(said, error, None), _audit(said, error, labelled)


def _audit(said: Sequence[Integers], error: AdjustedGap | None, labelled: LabelledFigures | None) -> Audit:
    sides = [stances_of(own) for own in said]
    whole, pairs = Estimate(1.0, 1.0, 1.0), len(said[0])
    unscored = int(sum((own == 3).sum() for own in said))
    gap = value_gap(sides[0], sides[1])
    mix = (NOTHING,) * 3
    overall = Findings(whole, pairs, whole, pairs, mix, gap, NOTHING, 2 * pairs, unscored, 0, error, labelled)
    return Audit("", "pairs", pairs, "planted", "", overall, {}, None, [], [], np.empty(0, dtype=np.int64), (), {})


def _judged(verdict: str, gap: float) -> str:
    """Whether an audit's word on what to expect is wrong, right, or none."""
    if verdict.startswith("Cannot tell"):
        return "cannot tell"
    words, true = ("little", "some", "much"), {0.0: "little", 0.3: "some", 0.6: "much"}[gap]
    named = verdict.removeprefix("Expect ").partition(" drift")[0].split(" to ")
    span = words[words.index(named[0]) : words.index(named[-1]) + 1]
    return "right" if true in span else "wrong"


# Checks ---------------------------------------------------------------------------------------------------------------


def check_rows(repetitions: int, seed: int = 0) -> Iterator[list[str]]:
    """For each number of propositions and correlation: coverage of accuracy, kappa and what is shown of a drift."""
    for groups in GROUPS:
        for correlation in CORRELATIONS:
            rng = np.random.default_rng([seed, groups, round(10 * correlation)])
            held = np.zeros(4)
            for _ in range(repetitions):
                held += checked(groups, correlation, rng)
            yield [str(groups), f"{correlation:g}", *(f"{own / repetitions:.3f}" for own in held)]


RIGHT = 0.8  # of all answers; kappa and what is shown of a drift are 0.7


def checked(groups: int, correlation: float, rng: np.random.Generator, answers: int = 12) -> Floats:
    """(4,) whether intervals hold the truth: of accuracy, kappa, what is shown, and a naive bootstrap of accuracy."""
    spread = 1 / correlation - 1 if correlation else np.inf
    each = rng.beta(RIGHT * spread, (1 - RIGHT) * spread, groups) if correlation else np.full(groups, RIGHT)
    group = np.repeat(np.arange(groups), answers)
    truth = np.tile([0, 1, 2], groups * answers // 3)
    right = rng.random(len(truth)) < each[group]
    said = np.where(right, truth, (truth + rng.integers(1, 3, len(truth))) % 3)
    verdicts = [Verdict.of(own) for own in np.eye(3)[said]]
    found = judge_quality([LABELS[own] for own in truth], verdicts, [str(own) for own in group])
    shown = attenuation(truth, np.eye(3)[said], group).overall
    resampled = rng.binomial(len(right), right.mean(), 500) / len(right)
    naive = Estimate.of(float(right.mean()), resampled)
    wanted = ((found.accuracy, RIGHT), (found.kappa, 0.7), (shown, 0.7), (naive, RIGHT))
    return np.array([float(own.low <= value <= own.high) for own, value in wanted])


# The page -------------------------------------------------------------------------------------------------------------


def page(repetitions: int) -> Iterator[str]:
    """The lines of docs/judge_error.md."""
    yield "# What a judge's errors do, and what is left of them"
    yield ""
    yield f"Made by `python benchmarks/judge_error.py --repetitions {repetitions}`, which says what is planted."
    yield "The judge reads 26 % of support as opposition and 21 % of opposition as support."
    yield f"A share of {repetitions} repetitions has a standard error of at most {0.5 / repetitions**0.5:.3f},"
    yield f"and of {(0.95 * 0.05 / repetitions) ** 0.5:.3f} near 0.95."
    yield ""
    yield "## Drift"
    yield ""
    yield "Coverage of the 95 % interval and bias, of the mean net drift over topics and of the mean change of support."
    yield f"The matrix method knows the judge from {CHECKED} labelled texts of each stance, of the kind read here."
    yield "A net drift is never negative: noise adds to its estimate, the more the fewer the labels. Its interval"
    yield "allows for that; the change of a single stance has no such bias."
    yield ""
    yield from table(
        ["drift", "method", "net drift: coverage", "bias", "change of support: coverage", "bias"],
        drift_rows(repetitions),
    )
    yield ""
    yield "## Audits"
    yield ""
    yield "Share of audits whose word on the drift to expect is wrong, and share that cannot tell: with nothing known"
    yield f"of the judge, with its errors from {CHECKED} texts of each stance, and with labels of {LABELLED_ROWS} rows."
    yield "A range of words that holds the true one is not wrong, however wide. Coverage is that of the gap with the"
    yield "errors taken off."
    yield ""
    columns = [
        "gap",
        "pairs",
        "gap read",
        "nothing known: wrong, cannot tell",
        "errors known",
        "with labels",
        "coverage",
    ]
    yield from table(columns, audit_rows(repetitions))
    yield ""
    yield "## Checks of a judge"
    yield ""
    yield f"Coverage of 95 % intervals for a judge that is right of {RIGHT:.0%} of 12 answers a proposition."
    yield "Correlation: of being right within a proposition. Below five propositions there are no intervals."
    yield ""
    columns = [
        "propositions",
        "correlation",
        "accuracy",
        "kappa",
        "share of a drift shown",
        "accuracy, naive bootstrap",
    ]
    yield from table(columns, check_rows(5 * repetitions))


def table(columns: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    """A table in Markdown, row by row as they are made."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the page and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--output", default=str(PAGE))
    options = parser.parse_args(arguments)
    lines = []
    for line in page(options.repetitions):
        print(line, flush=True)
        lines.append(line)
    if options.output:
        Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
