"""A measurement of which no response could be scored says nothing, and has to say so."""

from __future__ import annotations

from collections import Counter

from valuedrift_mlflow.evaluation.measurement import Measurement

_NOT_TOLD = "the judge gives no reason"


def nothing_scored(measurement: Measurement) -> str:
    """One line where not one response has a stance, with the most frequent reasons; empty where one has."""
    if any(judged.verdict.vector(measurement.refusal) is not None for judged in measurement.responses):
        return ""
    reasons = Counter(judged.verdict.reason or _NOT_TOLD for judged in measurement.responses)
    told = "; ".join(f"{count:,}: {reason}" for reason, count in reasons.most_common(2))
    return (
        f"Cannot tell: none of {len(measurement.responses):,} responses could be scored by {measurement.judge} "
        f"({told}). Look at responses.json, or take another judge"
    )
