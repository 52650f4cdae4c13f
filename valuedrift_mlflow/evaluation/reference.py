"""A reference to hold a model's stances against: people's or another model's distributions, from a file or a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import kept
from valuedrift_mlflow.evaluation.measurement import Measurement, finite
from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import plain, read_table
from valuedrift_mlflow.stances import STANCES, RefusalRule
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.reference_distance import ReferenceDistance, Target, reference_distance
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

    from valuedrift_mlflow.report.page import Illustration

REFERENCE_TABLE = "reference_distance"
KEYS = ("item_id", "proposition_id", "proposition", "topic")  # what a row may speak of, the finest first
_RUN = "runs:/"
_ALLOWED = "a csv, jsonl, json or parquet file with stances, or runs:/RUN_ID of a stage or an evaluation"
SHARES, PERCENTAGES, COUNTS = "shares", "percentages", "counts"
_MOST = 1e300  # of a count: three of them are a number still
_SUM = 0.02  # that shares may be off 1 by, and percentages by as many of 100: they are rounded


@dataclass(frozen=True)
class Reference:
    """A reference that has been read and matched with a suite; ``said`` tells in one line what it speaks of."""

    uri: str
    target: Target
    said: str


def load_reference(uri: str, suite: Suite, refusal: RefusalRule = "neutral") -> Reference:
    """Read a reference.

    A file has a column ``topic``, ``proposition``, ``proposition_id`` or ``item_id`` (the finest counts), and
    ``support``, ``neutral``, ``oppose``: in all rows shares that sum to 1, percentages that sum to 100, or counts.
    ``n``, where it has one, says how many people or answers stand behind shares. ``runs:/RUN_ID`` takes the last
    measurement of a run, prompt by prompt.

    Raises:
        InputError: a missing file or run, missing columns, bad rows with their numbers, nothing that the suite asks.
    """
    if uri.startswith(_RUN) and "/" not in uri.removeprefix(_RUN).strip("/"):
        return _of_run(uri, suite, refusal)
    path = tracking.downloaded(uri, "reference", _ALLOWED) if uri.startswith(_RUN) else user_path(uri, "reference")
    if not path.is_file():
        raise InputError(problem("reference", uri, _ALLOWED))
    names = (*KEYS, *STANCES, "n")
    frame = read_table(path, f"reference {uri}", "a readable csv, jsonl, json or parquet file", names=names)
    key = next((name for name in KEYS if name in frame), None)
    lacking = [stance.value for stance in STANCES if stance.value not in frame]
    if key is None or lacking:
        found, wanted = ", ".join(map(str, frame.columns)), "support, neutral, oppose and topic, proposition or item_id"
        mend = f"add {', '.join([*([] if key else ['topic']), *lacking])}"
        raise InputError(problem(f"reference {uri}", found, f"the columns {wanted}", mend))
    if frame.empty:
        raise InputError(problem(f"reference {uri}", "no rows", "at least one row with stances"))
    return _of_rows(uri, [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")], key, suite)


def _of_rows(uri: str, rows: Sequence[Row], key: str, suite: Suite) -> Reference:
    known = {getattr(item, key) for item in suite.items}
    wrong: list[str] = []
    read = [_numbers(row, f"reference {uri} row {number}", wrong) for number, row in enumerate(rows, start=1)]
    # Of all rows together: 1, 0, 0 may be shares or the count of one person, and 50, 30, 20 percentages or counts.
    meant = "" if wrong else _meant([values for values, _ in read], uri, wrong)
    place: dict[str, int] = {}
    chosen: list[int] = []
    foreign = 0
    for number, row in enumerate(rows, start=1):
        name = plain(row[key]) if key == "topic" else str(row[key]).strip()  # topics are slugs: climate_change
        if name in place:
            wrong.append(problem(f"reference {uri} row {number} {key}", name, "each once"))
        elif name not in known:
            foreign += 1
        else:
            place[name] = len(chosen)
            chosen.append(number - 1)
    if wrong:
        raise InputError(limited(wrong, f"reference {uri}"))
    if not place:
        some = ", ".join(sorted(known)[:3])
        raise InputError(problem(f"reference {uri} {key}", f"none of suite {suite.name}", f"such as {some}"))
    values = np.array([read[index][0] for index in chosen])
    given = np.array([read[index][1] for index in chosen])
    counts = np.where(np.isfinite(given), given, values.sum(axis=1) if meant == COUNTS else np.inf)
    stances = values / values.sum(axis=1, keepdims=True)
    row_of = np.array([place.get(getattr(item, key), -1) for item in suite.items], dtype=np.int64)
    left = f"; rows of nothing that the suite asks: {foreign}" if foreign else ""
    exact = "" if np.isfinite(counts).all() else ", taken as exact where n is not given"
    kind = "" if meant == SHARES else f", read as {meant}"
    said = f"reference {uri}: {len(place)} of {len(known)} {_plural(key)}{kind}{exact}{left}"
    return Reference(uri, Target(stances, counts, row_of), said)


def _plural(key: str) -> str:
    return {"item_id": "prompts", "topic": "topics"}.get(key, "propositions")


def _numbers(row: Row, where: str, wrong: list[str]) -> tuple[list[float], float]:
    """The three numbers of a row, and how many people or answers stand behind them; infinite where nobody says."""
    given = [row[stance.value] for stance in STANCES]
    values = [_number(value) for value in given]
    if not all(0 <= value < _MOST for value in values) or not math.fsum(values) > 0:
        wrong.append(problem(f"{where} support, neutral, oppose", given, "shares or counts of at least 0, not all 0"))
    number = _number(row["n"]) if str(row.get("n", "")).strip() not in ("", "None", "nan") else math.inf
    if not number > 0:
        wrong.append(problem(f"{where} n", row["n"], "a number above 0, or nothing"))
    return values, number


def _meant(rows: Sequence[Sequence[float]], uri: str, wrong: list[str]) -> str:
    """What the numbers of all rows are; rows that no reading fits are noted."""
    totals = np.array([math.fsum(values) for values in rows])
    whole = np.array([all(value.is_integer() for value in values) for values in rows])
    for meant, one in ((SHARES, 1), (PERCENTAGES, 100)):
        if (np.abs(totals - one) <= _SUM * one).all():
            return meant
    if whole.all():
        return COUNTS
    # The reading of most rows, and those that it does not fit.
    fits = [np.abs(totals - 1) <= _SUM, np.abs(totals - 100) <= _SUM * 100, whole]
    best = max(fits, key=np.count_nonzero)
    allowed = "in all rows shares that sum to 1, percentages that sum to 100, or counts"
    for number in np.flatnonzero(~best):
        where = f"reference {uri} row {number + 1} support, neutral, oppose"
        wrong.append(problem(where, f"a sum of {totals[number]:.3g}", allowed))
    return ""


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _of_run(uri: str, suite: Suite, refusal: RefusalRule) -> Reference:
    run_id = uri.removeprefix(_RUN).strip("/")
    tracking.check_run(run_id, "reference")
    measured = kept.logged_measurements(run_id, suite, refusal, "reference", "measure on the suite of that run")[-1]
    scored = Counter(own.item.item_id for own in measured.responses if own.verdict.vector(refusal) is not None)
    counts = np.array([scored[item.item_id] for item in suite.items], dtype=float)
    row = np.where(counts > 0, np.cumsum(counts > 0) - 1, -1)
    if not (counts > 0).any():
        raise InputError(problem("reference", uri, "a run with at least one scored response"))
    target = Target(measured.values[counts > 0], counts[counts > 0], row.astype(np.int64))
    return Reference(uri, target, f"reference {uri}: step {measured.step}, {int((counts > 0).sum())} prompts")


def distances(
    reference: Reference, measurements: Sequence[Measurement], interval: Interval, seed: int
) -> ReferenceDistance:
    """How far each measurement is from the reference; changes are from the first."""
    suite = measurements[0].suite
    most = max(own.answers.shape[1] for own in measurements)
    answers = np.full((len(measurements), len(suite.items), most, len(STANCES)), np.nan)
    for number, own in enumerate(measurements):
        answers[number, :, : own.answers.shape[1]] = own.answers
    units, _ = suite.propositions
    return reference_distance(answers, suite.groups, units, reference.target, interval, seed=seed)


def distance_metrics(found: ReferenceDistance, suite: Suite) -> dict[str, float]:
    """``reference_distance/TOPIC`` and ``/overall`` of the last measurement, the latter with the ends of its interval.

    Those of single topics are in `distance_table`.
    """
    metrics = {
        f"reference_distance/{suite.topics[t]}": float(found.distance[-1, place])
        for place, t in enumerate(found.topics.tolist())
    }
    low, high = found.overall_interval[-1]
    metrics["reference_distance/overall"] = float(found.overall[-1])
    metrics |= {"reference_distance_ci_low/overall": float(low), "reference_distance_ci_high/overall": float(high)}
    if len(found.overall) > 1:
        low, high = found.change_interval[-1]
        metrics |= {"reference_distance_change/overall": float(found.change[-1])}
        metrics |= {"reference_distance_change_ci_low/overall": float(low)}
        metrics |= {"reference_distance_change_ci_high/overall": float(high)}
    return finite(metrics)


def distance_table(found: ReferenceDistance, suite: Suite, steps: Sequence[int]) -> pd.DataFrame:
    """One row for each step and topic, and for all topics: the table ``reference_distance.json``."""
    import pandas as pd

    rows: list[Mapping[str, object]] = []
    for c, step in enumerate(steps):
        for place, t in enumerate(found.topics.tolist()):
            low, high = found.interval[c, place]
            value = found.distance[c, place]
            rows.append({"step": step, "topic": suite.topics[t], "distance": value, "ci_low": low, "ci_high": high})
        low, high = found.overall_interval[c]
        change, (change_low, change_high) = found.change[c], found.change_interval[c]
        rows.append(
            {"step": step, "topic": "overall", "distance": found.overall[c], "ci_low": low, "ci_high": high}
            | {"change": change, "change_ci_low": change_low, "change_ci_high": change_high}
        )
    frame = pd.DataFrame(rows)
    return frame.astype(object).where(frame.notna(), None)


def sentence(found: ReferenceDistance, uri: str) -> str:
    """Whether the stances are nearer to the reference than at the start, in one line."""
    distance = with_interval(found.overall[-1], found.overall_interval[-1])
    told = f"distance from {uri} {distance} over {len(found.topics)} topics"
    if not math.isfinite(found.overall[-1]):
        return f"distance from {uri}: cannot tell, nothing was scored"
    if len(found.overall) < 2:
        return told
    low, high = found.change_interval[-1]
    change = f"{found.change[-1]:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "")
    if high < 0:
        return f"{told}: nearer than at the start ({change})"
    if low > 0:
        return f"{told}: farther than at the start ({change})"
    return f"{told}: cannot tell whether nearer or farther than at the start ({change})"


def distance_figure(found: ReferenceDistance, steps: Sequence[int], uri: str) -> Illustration:
    """The overall distance from the reference by step, with its 95 % interval."""
    from valuedrift_mlflow.report.page import Illustration
    from valuedrift_mlflow.report.plots import COLUMN, plot
    from valuedrift_mlflow.report.tables import Cell, Table

    plt = plot()
    figure, axes = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
    low, high = found.overall_interval.T
    axes.fill_between(steps, low, high, color="#009E73", alpha=0.18, linewidth=0)
    axes.plot(steps, found.overall, color="#009E73", linewidth=1.6, marker="o", markersize=3)
    axes.set_ylim(0, 1)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("distance (total variation)")
    rows: list[list[Cell]] = [
        [int(step), float(value), float(ends[0]), float(ends[1])]
        for step, value, ends in zip(steps, found.overall, found.overall_interval, strict=True)
    ]
    data = Table(("step", "distance", "ci_low", "ci_high"), rows)
    told = sentence(found, uri)
    caption = f"Distance from {uri}: total variation, mean over its topics, with 95 % intervals."
    return Illustration(figure, caption, f"{told[0].upper()}{told[1:]}.", data)
