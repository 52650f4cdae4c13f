"""The tables of topics in a report: how sure a drift is, and what unscored answers could hide of it.

A new figure of a topic is one line in `SURE` or `UNSCORED`. A column that no topic has is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.report.tables import Column, Table, built
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import ALPHA, with_interval
from valuedrift_mlflow.statistics.unscored import Hidden
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL


@dataclass(frozen=True)
class Topics:
    """The topics of one stage at its last checkpoint, and what their unscored answers may hide."""

    drift: Drift

    @property
    def hidden(self) -> Sequence[Hidden]:
        """What the unscored answers of each topic may hide."""
        return self.drift.unscored

    @property
    def by_size(self) -> list[int]:
        """The places of all topics, the one that drifted most first; those that nobody could score last."""
        order = np.argsort(-np.nan_to_num(self.drift.total_variation[-1], nan=-1.0), kind="stable")
        return [int(t) for t in order]

    @property
    def starred(self) -> list[int]:
        """The places of those that moved significantly, the one that drifted most first."""
        return [t for t in self.by_size if self.drift.topic_significant[-1, t]]

    @property
    def sure(self) -> Table:
        """Each topic's drift, its interval and verdict, and what would have been found."""
        return built(SURE, self, self.by_size)

    @property
    def brief(self) -> Table:
        """What of `sure` a narrow page has room for: each topic's verdict, drift and stances before and after."""
        return built([column for column in SURE if column.name in BRIEF], self, self.by_size)

    @property
    def unscored(self) -> Table:
        """Each topic that has unscored answers: how many, before and after, and what they may hide."""
        return built(UNSCORED, self, [t for t in self.by_size if self.hidden[t].rate[[0, -1]].any()])


def _topic(topics: Topics, t: int) -> str:
    return readable(topics.drift.topics[t])


def _drift(topics: Topics, t: int) -> str:
    drift = topics.drift
    if not np.isfinite(drift.total_variation[-1, t]):
        return ""
    star = " *" if drift.topic_significant[-1, t] else ""
    return with_interval(drift.total_variation[-1, t], drift.total_variation_ci[-1, t]) + star


def _given_star(topics: Topics, t: int) -> str:
    """What is left of a drift, given that it was large enough for a star."""
    drift = topics.drift
    if not drift.topic_significant[-1, t] or not np.isfinite(drift.topic_selected[-1, t]):
        return ""
    return with_interval(drift.topic_selected[-1, t], drift.topic_selected_ci[-1, t])


def _when(topics: Topics, t: int) -> str:
    """The parts of the stage after which half and nine tenths of the change had come, of the stance that changed most.

    Nothing where there are no checkpoints between, or the topic has no star.
    """
    drift = topics.drift
    most = int(np.argmax(np.nan_to_num(np.abs(drift.magnitude[-1, t]))))
    times, ends = drift.arrival[t, most], drift.arrival_ci[t, most]
    if not np.isfinite(times).all():
        return ""
    return ", ".join(f"{at:.2f} [{low:.2f}, {high:.2f}]" for at, (low, high) in zip(times, ends, strict=True))


def _beyond(topics: Topics, t: int) -> str:
    """How far a stance of the topic went beyond its final value, where that is more than noise."""
    drift = topics.drift
    shown = np.where(drift.overshoot_p[t] <= ALPHA, np.nan_to_num(drift.overshoot[t]), -1.0)
    most = int(np.argmax(shown))
    return with_interval(drift.overshoot[t, most], drift.overshoot_ci[t, most]) if shown[most] >= 0 else ""


def _stances(topics: Topics, t: int) -> str:
    """Where the topic stands: its three stances before and after."""
    shown = topics.drift.probability[[0, -1], t]
    if not np.isfinite(shown).all():
        return ""
    before, after = (" / ".join(f"{value:.2f}" for value in row) for row in shown)
    return f"{before} → {after}"


def _rates(topics: Topics, t: int) -> str:
    first, last = topics.hidden[t].rate[[0, -1]]
    return f"{100 * first:.1f}\N{NO-BREAK SPACE}% → {100 * last:.1f}\N{NO-BREAK SPACE}%"


def _bounds(topics: Topics, t: int) -> str:
    return f"{topics.hidden[t].low[-1]:.3f} to {topics.hidden[t].high[-1]:.3f}"


def _stands(topics: Topics, t: int) -> str:
    drift = topics.drift
    verdict = str(drift.verdict[-1, t])
    if verdict == CANNOT_TELL:
        return "no verdict"
    return "yes" if topics.hidden[t].stands(verdict, drift.margin) else "no: they alone could undo it"


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else ""


SURE: tuple[Column[Topics], ...] = (
    Column("topic", _topic),
    Column("verdict", lambda topics, t: str(topics.drift.verdict[-1, t])),
    Column("net drift [95 % interval]", _drift),
    Column("given its star [95 % interval]", _given_star),
    Column("50 % and 90 % of it after (of the stage)", _when),
    Column("beyond its end by", _beyond),
    Column("p, in the family", lambda topics, t: _number(topics.drift.topic_p_adjusted[-1, t])),
    Column("found from", lambda topics, t: _number(topics.drift.minimum_detectable[-1, t])),
    Column("drift of its propositions", lambda topics, t: _number(topics.drift.within[-1, t])),
    Column("support / neutral / oppose", _stances),
)
BRIEF = frozenset({"topic", "verdict", "net drift [95 % interval]", "support / neutral / oppose"})
UNSCORED: tuple[Column[Topics], ...] = (
    Column("topic", _topic),
    Column("unscored", _rates),
    Column("p that it changed", lambda topics, t: _number(topics.hidden[t].p_value[-1])),
    Column("verdict", lambda topics, t: str(topics.drift.verdict[-1, t])),
    Column("net drift", lambda topics, t: _number(topics.drift.total_variation[-1, t])),
    Column("had all of them spoken", _bounds),
    Column("verdict stands", _stands),
)
