"""How sure a measurement will be, and was, in one line each: what it can find, and what would help most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.evaluation.metrics import hidden_by_unscored, topics_undecided, typical_detectable
from valuedrift_mlflow.statistics.drift import Drift
from valuedrift_mlflow.statistics.intervals import ALPHA
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
    """Which verdicts hang on unscored answers, and where their share has changed; empty where neither is so."""
    found = hidden_by_unscored(measurements)
    hang = [
        topic for t, topic in enumerate(drift.topics) if not found[t].stands(str(drift.verdict[-1, t]), drift.margin)
    ]
    p_values = sorted((float(one.p_value[-1]), topic) for one, topic in zip(found, drift.topics, strict=True))
    tested = [(p, topic) for p, topic in p_values if np.isfinite(p)]
    # Holm: the k-th smallest of m is compared with 5 % / (m - k), and no later one once one fails.
    passed = [p <= ALPHA / (len(tested) - k) for k, (p, _) in enumerate(tested)]
    changed = [topic for k, (_, topic) in enumerate(tested) if all(passed[: k + 1])]
    said = []
    if changed:
        said.append(f"the share of unscored answers has changed in {', '.join(changed)}")
    if hang:
        said.append(f"unscored answers alone could undo the verdict on {', '.join(hang)}")
    return "; ".join(said)
