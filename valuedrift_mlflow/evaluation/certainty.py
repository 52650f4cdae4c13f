"""How sure a measurement will be, and was, in one line each: what it can find, and what would help most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.evaluation.metrics import topics_undecided, typical_detectable
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.power import Design, announced
from valuedrift_mlflow.statistics.units import FEW_UNITS, Interval
from valuedrift_mlflow.statistics.verdicts import HELP
from valuedrift_mlflow.suite import Suite


def design_of(suite: Suite, samples: int, checkpoints: int, interval: Interval) -> Design:
    """The design of the suite's median topic."""
    proposition = {item.proposition_id: item.topic for item in suite.items}
    propositions = int(np.median(list(Counter(proposition.values()).values())))
    prompts = int(np.median(list(Counter(item.proposition_id for item in suite.items).values())))
    return Design(len(suite.topics), propositions, prompts, samples, checkpoints, interval)


def expected_line(suite: Suite, samples: int, checkpoints: int, interval: Interval) -> str:
    """What a stage measured so can find, before anything is measured."""
    design = design_of(suite, samples, checkpoints, interval)
    asked = f"{design.propositions} propositions x {design.prompts} prompts x {design.samples} samples a topic"
    units = len(np.unique(design.units))
    if units < FEW_UNITS:
        return f"{asked}: fewer than {FEW_UNITS} {interval} are not tested, so hardly anything can be told of a topic"
    least = announced(design)
    if not np.isfinite(least):
        return f"{asked}: no drift of a single topic would be found in 80 % of such stages"
    return f"{asked}: a drift of {least:.2f} in one topic would be found in 80 % of such stages"


def measured_line(drift: Drift, at: int = -1) -> str:
    """Of how many topics nothing can be told, and what would have helped most; empty where all is told."""
    undecided = topics_undecided(drift, at)
    if not undecided:
        return ""
    said = f"cannot tell of {undecided} of {len(drift.topics)} topics"
    least = typical_detectable(drift, at)
    if not np.isfinite(least):
        return f"{said}: ask at least {FEW_UNITS} {drift.interval} a topic, better 20"
    # Of all three the number of responses is twice what it was.
    helped = {name: float(np.nanmedian(drift.helped[at, :, place])) for place, name in enumerate(HELP)}
    best = min(helped, key=lambda name: helped[name])
    others = ", ".join(f"{name} {value:.2f}" for name, value in helped.items() if name != best)
    return (
        f"{said}: a drift of {least:.2f} is found in 80 % of such stages; with twice as many {best} one of "
        f"{helped[best]:.2f} would be ({others})"
    )


def unscored_line(drift: Drift, measurements: Sequence[Measurement]) -> str:
    """What unscored answers could hide; empty where that is nothing.

    Where their share has changed, which stars they cost, and which verdicts hang on them.
    """
    said = []
    changed = _named(drift, drift.unscored_changed[-1])
    if changed:
        before, after = (measurements[at].rate(Label.UNSCORED) for at in (0, -1))
        said.append(f"the share of unscored answers has changed in {changed} (all: {before:.0%} to {after:.0%})")
    withheld = _named(drift, drift.withheld[-1].any(axis=-1) & ~drift.topic_significant[-1])
    if withheld:
        said.append(f"no star for {withheld}, as unscored answers alone could be its cause")
    hang = [
        not one.stands(str(verdict), drift.margin)
        for one, verdict in zip(drift.unscored, drift.verdict[-1], strict=True)
    ]
    if any(hang):
        said.append(f"unscored answers alone could undo the verdict on {_named(drift, np.array(hang))}")
    return "; ".join(said)


def _named(drift: Drift, which: NDArray[np.bool_]) -> str:
    """The topics that are meant, of many only that all are."""
    if which.all() and len(which) > 1:
        return "all topics"
    return ", ".join(topic for topic, one in zip(drift.topics, which, strict=True) if one)
