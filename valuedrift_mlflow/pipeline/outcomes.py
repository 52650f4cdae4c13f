"""What the cells of an ablation do to each topic: stances at the end, drift, and what one choice adds to another.

The cells of a choice differ in their seeds alone. Their answers are taken together, as more samples of the same
prompts: what is analysed is the mean of the models that these seeds gave, with the intervals, tests and verdicts of
`statistics.drift`, whose units are propositions. What other seeds would give is not in these intervals; the drift over
seeds of each choice is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.pipeline.ablation_summary import Dose, cell_name, changed
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.axes import holm
from valuedrift_mlflow.statistics.drift import Drift, analyse
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.paired import Comparison, compare
from valuedrift_mlflow.statistics.units import Interval
from valuedrift_mlflow.statistics.verdicts import MARGIN

if TYPE_CHECKING:
    import pandas as pd

FLIPPED = "turned"
LEAST_SHOWN = 0.001  # smaller p values are shown as this one
SUPPORT, OPPOSE = 0, len(STANCES) - 1  # places of the stances that a leaning is the difference of


@dataclass(frozen=True)
class Outcome:
    """A cell that was trained: its start (or the base model, where chains are compared) and its end."""

    series: str
    stages: tuple[str, ...]  # that were trained, the first one first
    doses: tuple[Dose, ...]
    seed: int
    before: Measurement
    after: Measurement


def pooled(
    before: Sequence[Measurement],
    after: Sequence[Measurement],
    interval: Interval = "propositions",
    margin: float = MARGIN,
) -> Drift:
    """The drift from the mean of some models to the mean of others, each measured on one suite.

    A measurement that several cells share counts once.
    """
    suite = after[0].suite
    sides = [_together(before), _together(after)]
    most = max(answers.shape[1] for answers in sides)
    values = np.full((2, len(suite.items), most, len(STANCES)), np.nan)
    for side, answers in enumerate(sides):
        values[side, :, : answers.shape[1]] = answers
    topics, propositions = zip(*((item.topic, item.proposition_id) for item in suite.items), strict=True)
    return analyse(values, topics, [0, 1], propositions=propositions, interval=interval, margin=margin)


def _together(measurements: Sequence[Measurement]) -> NDArray[np.float64]:
    distinct = {id(one): one for one in measurements}.values()
    return np.concatenate([one.answers for one in distinct], axis=1)


def leaning(drift: Drift, at: int = -1) -> NDArray[np.float64]:
    """(T,) support minus oppose of each topic, in [-1, 1]."""
    return drift.probability[at, :, SUPPORT] - drift.probability[at, :, OPPOSE]


def majority(drift: Drift, at: int, topic: int) -> str:
    """The stance that most answers of a topic take; empty where none was scored."""
    shares = drift.probability[at, topic]
    return STANCES[int(np.argmax(shares))].value if np.isfinite(shares).all() else ""


@dataclass(frozen=True)
class Choice:
    """The cells of one choice over its seeds."""

    series: str
    stages: tuple[str, ...]
    doses: tuple[Dose, ...]
    cells: tuple[Outcome, ...]
    interval: Interval = "propositions"
    margin: float = MARGIN

    @property
    def name(self) -> str:
        """``dpo, gap 0.5``."""
        return cell_name(self.series, self.doses)

    @cached_property
    def drift(self) -> Drift:
        """From where its cells start to where they end."""
        return self.since([cell.before for cell in self.cells])

    def since(self, before: Sequence[Measurement]) -> Drift:
        """From other models to where its cells end."""
        return pooled(before, [cell.after for cell in self.cells], self.interval, self.margin)

    def per_seed(self) -> dict[int, NDArray[np.float64]]:
        """By seed the (T, 3) signed changes of the stances of each topic."""
        return {cell.seed: _changes(cell) for cell in self.cells}


def _changes(cell: Outcome) -> NDArray[np.float64]:
    suite = cell.after.suite
    topics = [suite.groups == number for number in range(len(suite.topics))]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # NaN where no prompt was scored
        ends = [[np.nanmean(one.values[own], axis=0) for own in topics] for one in (cell.before, cell.after)]
    changes: NDArray[np.float64] = np.asarray(ends[1]) - np.asarray(ends[0])
    return changes


def choices(outcomes: Sequence[Outcome], interval: Interval = "propositions", margin: float = MARGIN) -> list[Choice]:
    """The cells by choice, in their order."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(cell_name(one.series, one.doses), []).append(one)
    return [Choice(own[0].series, own[0].stages, own[0].doses, tuple(own), interval, margin) for own in groups.values()]


def topics_table(found: Sequence[Choice]) -> pd.DataFrame:
    """One row for each choice and topic: the table ``ablation_topics.json``."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for choice in found:
        drift, suite_topics = choice.drift, choice.drift.topics
        for t, topic in enumerate(suite_topics):
            rows.append({**_named(choice), "topic": topic, **_of_topic(drift, t), "leaning": leaning(drift)[t]})
    return _without_nan(pd.DataFrame(rows))


def _named(choice: Choice) -> dict[str, object]:
    doses = {dose.axis: dose.label if dose.number is None else dose.value for dose in choice.doses}
    return {"series": choice.series, **doses, "seeds": len(choice.cells)}


def _of_topic(drift: Drift, t: int) -> dict[str, object]:
    shares = dict(zip((stance.value for stance in STANCES), drift.probability[-1, t], strict=True))
    return {
        **shares,
        "drift": drift.total_variation[-1, t],
        "ci_low": drift.total_variation_ci[-1, t, 0],
        "ci_high": drift.total_variation_ci[-1, t, 1],
        "p_adjusted": drift.topic_p_adjusted[-1, t],
        "significant": bool(drift.topic_significant[-1, t]),
        "verdict": str(drift.verdict[-1, t]),
        "minimum_detectable": drift.minimum_detectable[-1, t],
    }


# One choice beside another -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """What the models of one choice differ in from those of the first choice of the same line."""

    choice: Choice
    against: Choice
    drift: Drift  # from the models of ``against`` to those of ``choice``
    compared: Comparison  # of the drifts of both, each from where it starts; seeds and propositions vary
    p_adjusted: float = math.nan  # of that comparison, after Holm's method over all contrasts of a design

    @property
    def turned(self) -> list[str]:
        """Topics with another majority whose difference is significant."""
        drift = self.drift
        return [
            topic
            for t, topic in enumerate(drift.topics)
            if drift.topic_significant[-1, t] and majority(drift, 0, t) != majority(drift, -1, t)
        ]


def contrasts(found: Sequence[Choice]) -> list[Contrast]:
    """Every choice beside the first one of its line; of chains of stages without doses, beside the first chain.

    Choices of another start or another suite are left out: what they differ in is no effect of the choice.
    """
    first: dict[str, Choice] = {}
    pairs = []
    for choice in found:
        line = cell_name(choice.series, choice.doses[1:]) if choice.doses else ""
        against = first.setdefault(line, choice)
        if against is not choice and _suite(against) == _suite(choice):
            pairs.append((choice, against))
    made = [_contrast(choice, against, len(pairs)) for choice, against in pairs]
    adjusted = holm(np.array([one.compared.p_value for one in made])).tolist()
    return [replace(one, p_adjusted=p_value) for one, p_value in zip(made, adjusted, strict=True)]


def _contrast(choice: Choice, against: Choice, tests: int) -> Contrast:
    ends = [cell.after for cell in against.cells]
    known = [{cell.seed: changed(cell.before, cell.after) for cell in one.cells} for one in (choice, against)]
    seeds = sorted(set(known[0]) & set(known[1]))  # the others have failed on one side
    compared = compare(*([own[seed] for seed in seeds] for own in known), tests=tests)
    return Contrast(choice, against, choice.since(ends), compared)


def _suite(choice: Choice) -> str:
    return choice.cells[0].after.suite.hash


CONTRAST_COLUMNS = (
    "beside",
    "apart [95 % interval]",
    "topics apart",
    "cannot tell",
    "turned",
    "drifts more by [95 % interval]",
    "adjusted p",
)


def contrast_rows(made: Sequence[Contrast]) -> list[list[str]]:
    """The contrasts as text, a row each, the choice first."""
    rows = []
    for one in made:
        drift = one.drift
        rows.append(
            [
                one.choice.name,
                one.against.name,
                with_interval(drift.overall[-1], drift.overall_ci[-1]),
                f"{int(drift.topic_significant[-1].sum())} of {len(drift.topics)}",
                str(int((drift.verdict[-1] == "cannot tell").sum())),
                ", ".join(one.turned),
                str(one.compared.difference),
                f"{max(one.p_adjusted, LEAST_SHOWN):.3f}" if math.isfinite(one.p_adjusted) else "",
            ]
        )
    return rows


def contrasts_table(made: Sequence[Contrast]) -> pd.DataFrame:
    """One row for each contrast and topic: the table ``ablation_contrasts.json``."""
    import pandas as pd

    rows = [
        {
            **_named(one.choice),
            "against": one.against.name,
            "topic": topic,
            **_of_topic(one.drift, t),
            "leaning_change": leaning(one.drift)[t] - leaning(one.drift, 0)[t],
            "majority_before": majority(one.drift, 0, t),
            "majority": majority(one.drift, -1, t),
            FLIPPED: topic in one.turned,
        }
        for one in made
        for t, topic in enumerate(one.drift.topics)
    ]
    return _without_nan(pd.DataFrame(rows))


def differences_table(made: Sequence[Contrast]) -> pd.DataFrame:
    """One row for each contrast, of both drifts: the table ``ablation_differences.json``."""
    import pandas as pd

    rows = [
        {
            **_named(one.choice),
            "against": one.against.name,
            "drift": one.compared.first,
            "drift_against": one.compared.second,
            "difference": one.compared.difference.value,
            "ci_low": one.compared.difference.low,
            "ci_high": one.compared.difference.high,
            "p_value": one.compared.p_value,
            "p_adjusted": one.p_adjusted,
            "minimum_detectable": one.compared.detectable,
        }
        for one in made
    ]
    return _without_nan(pd.DataFrame(rows))


def _without_nan(table: pd.DataFrame) -> pd.DataFrame:
    """NaN as None: JSON has no NaN."""
    return table.astype(object).where(table.notna(), None)


def worths(found: Sequence[Choice]) -> dict[tuple[str, ...], dict[tuple[str, ...], Choice]]:
    """The choices by their doses, and for each by the stages that were trained."""
    by_doses: dict[tuple[str, ...], dict[tuple[str, ...], Choice]] = {}
    for choice in found:
        doses = tuple(f"{dose.axis} {dose.label}" for dose in choice.doses)
        by_doses.setdefault(doses, {})[choice.stages] = choice
    return by_doses
