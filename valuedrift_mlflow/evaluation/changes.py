"""Answers before and after: of the propositions that moved most, one prompt answered at the start and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.stances import total_variation

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Pair = tuple[JudgedResponse, JudgedResponse]  # one prompt and sample, answered before and after

SHOWN = 6  # propositions of a stage
_OF_A_TOPIC = 2  # so that one topic does not take all places


@dataclass(frozen=True)
class Change:
    """One proposition that moved, with one of its answers before and after: same prompt, same number of the sample.

    Attributes:
        before: the answer at the start.
        after: the answer at the end.
        leaning: the proposition's mean support minus oppose, at the start and at the end, in [-1, 1].
        turned: answers to the proposition whose verdict is another one than at the start.
        answers: how many were asked at both.
    """

    before: JudgedResponse
    after: JudgedResponse
    leaning: tuple[float, float]
    turned: int
    answers: int


def largest_changes(before: Measurement, after: Measurement, topics: Sequence[str]) -> list[Change]:
    """The propositions of these topics whose stances moved furthest, at most two of a topic, the furthest first.

    Of a proposition it is the first prompt and sample, in the suite's order, whose verdict changed and went the way
    that the proposition went; where none did, the first whose verdict changed, else the first.
    """
    suite = after.suite
    numbers, propositions = suite.propositions
    stances = [_means(own.values, numbers, len(propositions)) for own in (before, after)]
    moved = total_variation(*stances)
    taken = dict.fromkeys(topics, 0)
    pairs = _pairs(before, after)
    changes: list[Change] = []
    for number in np.argsort(-np.nan_to_num(moved, nan=-1.0), kind="stable"):
        topic = propositions[number].topic
        if taken.get(topic, _OF_A_TOPIC) >= _OF_A_TOPIC or not np.isfinite(moved[number]) or len(changes) == SHOWN:
            continue
        own = pairs.get((topic, propositions[number].proposition_id), [])
        if own:
            taken[topic] += 1
            leanings = [float(row[number, 0] - row[number, 2]) for row in stances]
            changes.append(_change(own, leanings[0], leanings[1]))
    return changes


def changes_table(changes: Sequence[tuple[str, Change]]) -> pd.DataFrame:
    """One row for each change of a stage: the table ``largest_changes.json``."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "stage": stage,
                "topic": change.after.item.topic,
                "proposition": change.after.item.proposition,
                "leaning_before": change.leaning[0],
                "leaning_after": change.leaning[1],
                "verdicts_changed": change.turned,
                "answers": change.answers,
                "item_id": change.after.item.item_id,
                "sample": change.after.sample,
                "prompt": change.after.item.prompt,
                "before": change.before.response,
                "verdict_before": change.before.verdict.label.value,
                "after": change.after.response,
                "verdict_after": change.after.verdict.label.value,
            }
            for stage, change in changes
        ]
    )


def _means(values: Floats, numbers: NDArray[np.int64], count: int) -> Floats:
    """(N, 3) of prompts -> (P, 3) of propositions, over the prompts that were scored; NaN where none was."""
    scored = ~np.isnan(values[:, 0])
    sums, asked = np.zeros((count, values.shape[1])), np.zeros((count, 1))
    np.add.at(sums, numbers[scored], values[scored])
    np.add.at(asked, numbers[scored], 1)
    with np.errstate(invalid="ignore"):
        means: Floats = sums / asked
    return means


def _pairs(before: Measurement, after: Measurement) -> dict[tuple[str, str], list[Pair]]:
    """The answers that were asked for at both, by their propositions, in the suite's order."""
    first = {(judged.item.item_id, judged.sample): judged for judged in before.responses}
    order = {item.item_id: place for place, item in enumerate(after.suite.items)}
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for judged in sorted(after.responses, key=lambda own: (order[own.item.item_id], own.sample)):
        start = first.get((judged.item.item_id, judged.sample))
        if start is not None:
            pairs.setdefault((judged.item.topic, judged.item.proposition_id), []).append((start, judged))
    return pairs


def _change(pairs: Sequence[Pair], before: float, after: float) -> Change:
    turned = [pair for pair in pairs if pair[0].verdict.label != pair[1].verdict.label]
    along = [pair for pair in turned if np.sign(_leaning(pair[1]) - _leaning(pair[0])) == np.sign(after - before)]
    start, end = (along or turned or pairs)[0]
    return Change(start, end, (before, after), len(turned), len(pairs))


def _leaning(judged: JudgedResponse) -> float:
    """Support minus oppose of one answer; NaN, which goes no way, where it is unscored."""
    vector = judged.verdict.vector("neutral")
    return float("nan") if vector is None else float(vector[0] - vector[2])
