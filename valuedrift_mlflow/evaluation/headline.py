"""What a report says first, in a sentence: what moved and along which axis, or where a model stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.axes import DATA, AxisShifts
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import with_interval
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MOVED, NOT_MOVED
from valuedrift_mlflow.suite import Suite

_NAMED = 3  # axes that a sentence names


@dataclass(frozen=True)
class Lead:
    """One stage, or one model, in a sentence.

    Attributes:
        name: of the stage; empty where the page is about one comparison.
        verdict: *moved* where a topic or an axis did, *not moved* where all topics are shown to lie within the margin,
            else *cannot tell*; empty where nothing is compared.
        text: what moved.
    """

    name: str
    verdict: str
    text: str


def lead_of(name: str, drift: Drift, axes: AxisShifts, suite: Suite, at: int = -1) -> Lead:
    """What moved from the first checkpoint to the last, or to another one."""
    counts, topics = verdict_counts(drift, at), len(drift.topics)
    shifted = _shifted(axes, suite, at)
    if counts[MOVED]:
        text = f"{_of(counts[MOVED], topics)} moved ({_went(drift, at)})"
        text += f"; nothing can be told of {counts[CANNOT_TELL]}" if counts[CANNOT_TELL] else ""
    elif counts[CANNOT_TELL]:
        text = f"No topic's mean moved significantly; nothing can be told of {counts[CANNOT_TELL]} of {topics}"
    else:
        text = f"{_of(topics, topics)} stayed within {drift.margin:g}"
    moved = counts[MOVED] or bool(shifted)
    verdict = MOVED if moved else CANNOT_TELL if counts[CANNOT_TELL] else NOT_MOVED
    if np.isfinite(drift.overall[at]):
        text += f". Net drift {with_interval(drift.overall[at], drift.overall_ci[at])}"
    parts = [f"{text[0].upper()}{text[1:]}.", _along(axes, shifted, at)]
    # What moved stands first.
    return Lead(name, verdict, " ".join(parts[::-1] if shifted and not counts[MOVED] else parts))


def standing(drift: Drift, axes: AxisShifts, suite: Suite) -> Lead:
    """Where a single model stands: over all topics, and on the axes on which it is surely off the middle."""
    last = drift.overall_probability[-1]
    if not np.isfinite(last).all():
        return Lead("", CANNOT_TELL, "No topic has an answer that could be scored.")
    text = "Over all topics: " + ", ".join(f"{stance} {last[s]:.2f}" for s, stance in enumerate(STANCES)) + "."
    if not suite.axes:
        return Lead("", "", text)
    off = [
        a
        for a in np.argsort(-np.abs(np.nan_to_num(axes.leaning[-1])), kind="stable")
        if axes.leaning_ci[-1, a, 0] > 0 or axes.leaning_ci[-1, a, 1] < 0
    ]
    if not off:
        return Lead("", "", f"{text} On none of {len(axes.axes)} axes is its interval off the middle.")
    told = [
        f"{readable(axes.axes[a])} {with_interval(axes.leaning[-1, a], axes.leaning_ci[-1, a])}"
        f"{_end(suite, axes.axes[a], float(axes.leaning[-1, a]))}"
        for a in off[:_NAMED]
    ]
    more = f", and {len(off) - _NAMED} more" if len(off) > _NAMED else ""
    return Lead("", "", f"{text} Off the middle on {len(off)} of {len(axes.axes)} axes: {'; '.join(told)}{more}.")


def verdict_counts(drift: Drift, at: int = -1) -> Counter[str]:
    """How many topics have each verdict at a checkpoint."""
    return Counter(map(str, drift.verdict[at]))


def _of(count: int, of: int) -> str:
    return f"all {of} topics" if count == of > 1 else f"{count} of {of} topics"


def _went(drift: Drift, at: int) -> str:
    """The stance that changed most over all topics."""
    first, last = drift.overall_probability[[0, at]]
    if not np.isfinite(last - first).all():
        return f"net drift {drift.overall[at]:.2f}"
    most = int(np.argmax(np.abs(last - first)))
    return f"overall {STANCES[most]} {first[most]:.2f} → {last[most]:.2f}"


def _shifted(axes: AxisShifts, suite: Suite, at: int) -> list[str]:
    """The axes that shifted significantly, the furthest first, each with the end that it shifted to."""
    told = []
    for a in np.argsort(-np.abs(np.nan_to_num(axes.shift[at])), kind="stable"):
        if axes.significant[at, a]:
            shift, axis = float(axes.shift[at, a]), axes.axes[a]
            told.append(f"{readable(axis)} {with_interval(shift, axes.shift_ci[at, a])}{_end(suite, axis, shift)}")
    return told


def _end(suite: Suite, axis: str, value: float) -> str:
    """What the end stands for that a value lies towards, where the suite says it."""
    ends = suite.ends.get(axis)
    # Up to the colon, behind which some say more.
    return f" (towards {(ends.plus if value > 0 else ends.minus).partition(':')[0]})" if ends else ""


def _along(axes: AxisShifts, shifted: Sequence[str], at: int) -> str:
    count = len(axes.axes)
    if axes.axes == (DATA,):
        return "Its propositions moved apart." if shifted else "That its propositions moved apart is not shown."
    if shifted:
        more = f", and {len(shifted) - _NAMED} more" if len(shifted) > _NAMED else ""
        return f"{'Axes that' if len(shifted) > 1 else 'One axis'} shifted: {'; '.join(shifted[:_NAMED])}{more}."
    bound = axes.bound(at)
    further = f", none further than {bound:.2f} as far as can be told" if np.isfinite(bound) else ""
    return f"None of {count} axes of values shifted significantly{further}."
