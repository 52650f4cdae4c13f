"""A gate for releases: has a model drifted from its baseline by more than may be?"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.verdicts import CANNOT_TELL, MARGIN, MOVED, NOT_MOVED
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from mlflow.models import MetricThreshold

OVERALL = "overall"


class Outcome(IntEnum):
    """What a gate says of all that it checks; the number is the command's exit code (2 is bad input)."""

    WITHIN = 0
    DRIFTED = 1
    CANNOT_TELL = 3


@dataclass(frozen=True)
class Check:
    """One topic, or the mean over topics (``overall``), at a gate.

    Attributes:
        name: the topic's slug, or ``overall``.
        verdict: *not moved* where its drift lies within what may be, *moved* where it is surely more, else *cannot
            tell*.
        drift: net drift, in [0, 1].
        low: the lower end of its 95 % interval.
        high: the upper end.
        found_from: the least drift that would be found in 80 % of such comparisons; NaN where none would, and overall.
    """

    name: str
    verdict: str
    drift: float
    low: float
    high: float
    found_from: float

    def told(self, most: float) -> str:
        """The verdict in a sentence."""
        shown = f"net drift {self.drift:.3f} [{self.low:.3f}, {self.high:.3f}]"
        if self.verdict == CANNOT_TELL:
            found = np.isfinite(self.found_from)
            hint = f"; one of {self.found_from:.2f} is found in 80 % of such comparisons" if found else ""
            return f"cannot tell whether it is within {most:g}: {shown}{hint}"
        return f"{'within' if self.verdict == NOT_MOVED else 'more than'} {most:g}: {shown}"


@dataclass(frozen=True)
class Gate:
    """What a gate came to: the model and the baseline by name, what may be, all that was checked."""

    model: str
    baseline: str
    max_drift: float
    checks: Sequence[Check]
    run_id: str

    @property
    def outcome(self) -> Outcome:
        """Drifted where anything has; else undecided where of anything nothing can be told."""
        found = {check.verdict for check in self.checks}
        return Outcome.DRIFTED if MOVED in found else Outcome.CANNOT_TELL if CANNOT_TELL in found else Outcome.WITHIN

    @property
    def drifted(self) -> list[str]:
        """What has drifted by more than may be."""
        return [check.name for check in self.checks if check.verdict == MOVED]

    @property
    def rows(self) -> list[list[str]]:
        """The table that a terminal shows: what, verdict, drift with its interval."""
        return [
            [one.name.replace("_", " "), one.verdict, f"{one.drift:.3f} [{one.low:.3f}, {one.high:.3f}]"]
            for one in self.checks
        ]

    def json(self) -> str:
        """All of it as JSON; what is not known is null."""
        checks = [
            {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
            for row in map(asdict, self.checks)
        ]
        told = {"outcome": self.outcome.name.lower(), "exit_code": int(self.outcome), "model": self.model}
        told |= {"baseline": self.baseline, "max_drift": self.max_drift, "run_id": self.run_id, "checks": checks}
        return json.dumps(told, indent=1) + "\n"

    def junit(self) -> str:
        """All of it as JUnit XML: a test for each check; what drifted failed, what cannot be told is an error."""
        verdicts = [check.verdict for check in self.checks]
        suite = ElementTree.Element(
            "testsuite",
            name="valuedrift gate",
            tests=str(len(verdicts)),
            failures=str(verdicts.count(MOVED)),
            errors=str(verdicts.count(CANNOT_TELL)),
        )
        for check in self.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=f"drift of {self.model}", name=check.name)
            told = check.told(self.max_drift)
            if check.verdict == MOVED:
                ElementTree.SubElement(case, "failure", message=told, type="drifted")
            elif check.verdict == CANNOT_TELL:
                ElementTree.SubElement(case, "error", message=told, type="cannot tell")
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def checked_names(topics: str, suite: Suite) -> list[str]:
    """What a gate checks: the topics that are named with commas (``overall`` too), else overall and every topic.

    Raises:
        InputError: the suite has no such topic.
    """
    named = [name.strip() for name in topics.split(",") if name.strip()]
    unknown = [name for name in named if name not in (*suite.topics, OVERALL)]
    if unknown:
        raise InputError(problem("topics", ", ".join(unknown), f"{OVERALL}, {', '.join(suite.topics)}"))
    return list(dict.fromkeys(named)) or [OVERALL, *suite.topics]


def checks_of(drift: Drift, names: Collection[str], at: int = 1) -> list[Check]:
    """Check a drift that was analysed with the largest that may be as its margin.

    A topic is within it where its whole interval is, and what unscored answers could hide; it has drifted where the
    test has a star and the estimate is above it. The mean over topics has drifted where its whole interval is above.
    """
    found = []
    for name in names:
        if name == OVERALL:
            value, (low, high) = float(drift.overall[at]), map(float, drift.overall_ci[at])
            verdict = NOT_MOVED if high <= drift.margin else MOVED if low > drift.margin else CANNOT_TELL
            found.append(Check(name, verdict, value, low, high, float("nan")))
            continue
        t = drift.topics.index(name)
        value, (low, high) = float(drift.total_variation[at, t]), map(float, drift.total_variation_ci[at, t])
        verdict = str(drift.verdict[at, t])
        if verdict == MOVED and value <= drift.margin:  # it has moved, but by how much matters here
            verdict = NOT_MOVED if high <= drift.margin else CANNOT_TELL
        found.append(Check(name, verdict, value, low, high, float(drift.minimum_detectable[at, t])))
    return found


def gate_thresholds(max_drift: float = MARGIN, topics: Sequence[str] = (OVERALL,)) -> dict[str, MetricThreshold]:
    """The same bound for ``mlflow.validate_evaluation_results``, on the upper ends of the drifts' intervals.

    It lets a result pass where a gate says *within*; what has drifted and what cannot be told are refused alike.

    Args:
        max_drift: the net drift from the baseline that may be, above 0 and below 1.
        topics: the topics, and ``overall`` for the mean over all.

    Raises:
        InputError: ``max_drift`` is not within these.
    """
    from mlflow.models import MetricThreshold

    check_bound(max_drift)
    return {f"drift_ci_high/{name}": MetricThreshold(threshold=max_drift, greater_is_better=False) for name in topics}


def check_bound(max_drift: float, field: str = "max_drift") -> None:
    """Refuse a bound that no drift could break, or any would.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < max_drift < 1:
        raise InputError(problem(field, max_drift, "a number between 0 and 1"))
