"""What an audited dataset will do to stances, in words, and what that rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    from valuedrift_mlflow.statistics.intervals import Estimate
    from valuedrift_mlflow.statistics.value_gap import ValueGap
    from valuedrift_mlflow.value_gap.findings import Audit, Findings

# DPO on embedded pairs, ``ablate`` with the design "algorithms", mean of three seeds: value gap and drift.
GAPS, DRIFTS = (0.0, 0.5, 1.0), (0.085, 0.381, 0.535)
NOISE = 0.064  # drift where nothing has changed, in the same experiment
SFT_DISTANCE = 0.07  # of each stance from the planted mix after SFT in the embedded world
LITTLE, SOME = 0.15, 0.3  # drift up to here is called so
FEWEST = 20  # scored pairs, or scored answers, that allow a word on what to expect
_NO_WAY = 0.01  # direction that is shown as 0.00 or 0.01: of no consequence, certain or not
_NOT_ENGLISH = 0.01  # share of rows; below it are the detector's own errors
_WHOLE = 0.9  # coverage from which answers are as good as all of the data
_CANCELLED = 0.5  # of the pairwise gap: a smaller marginal gap means that pairs contradict each other


def expected_drift(gap: float) -> float:
    """Drift under DPO on pairs of which this share is opposed, between the three measured gaps on straight lines.

    In [0, 1]: total variation over a stage, mean over topics. It was measured with every row on a topic, all pairs
    pointing one way, and a model of 1.7 million parameters; for any other case it is an extrapolation.

    In the experiments the gap is the share of *all* pairs whose sides take opposed stances. In other data that is the
    pairwise gap of the scored pairs times the coverage of propositions: a pair about something else has no gap.

    >>> expected_drift(0.0), expected_drift(0.75)
    (0.085, 0.458)
    """
    return float(np.round(np.interp(gap, GAPS, DRIFTS), 3))


def expectation(audit: Audit) -> str:
    """One line that says what to expect, then what it rests on, what it leaves open, and what could not be scored."""
    overall, trust = audit.overall, audit.trust
    on = f"{_percent(overall.proposition_coverage.value)} of rows ({_percent(overall.coverage.value)} touch a topic)"
    lines = [_of_pairs(overall, overall.gap, on) if overall.gap is not None else _of_answers(audit, on)]
    if trust is not None and trust.doubts and overall.labelled is None:
        read = f" What it read: {lines[0]}" if not lines[0].startswith("Cannot tell") else f" {lines[0]}"
        lines = [f"Cannot tell with the judge {trust.judge}: {'; '.join(trust.doubts)}.{read}"]
    elif trust is not None:
        lines.append(f"The judge: {trust.sentence}.")
    if audit.languages is not None and audit.languages.unread >= _NOT_ENGLISH:
        share = _percent(audit.languages.unread)
        lines.append(f"Not read: {share} of rows are in other languages than English, whatever they touch.")
    if overall.judged:
        rate = _percent(overall.unscored / overall.judged)
        lines.append(f"Not scored: {overall.unscored:,} of {overall.judged:,} responses that were judged ({rate}).")
    return " ".join(lines)


def _of_pairs(overall: Findings, gap: ValueGap, on: str) -> str:
    if not gap.scored:
        return (
            f"Cannot tell: no pair has both sides scored, of {gap.pairs:,} that touch a proposition; "
            f"{on.replace('rows (', 'rows touch one (')}."
        )
    coverage = overall.proposition_coverage
    read = f"{gap.scored:,} of the {gap.pairs:,} pairs that touch a proposition could be read"
    told = f"pairwise gap {_short(gap.pairwise)}"
    if gap.scored < FEWEST:
        return f"Cannot tell from {gap.scored} scored pairs (at least {FEWEST}; {read}): {told} on {on}."
    pairwise, doubt = _true_gap(overall, gap)
    told = f"{told}{_beside(overall)}"
    if doubt == _UNKNOWN:
        return f"Cannot tell: {doubt}. What it read: {told} on {on}; {read}."
    # A pair about something else has no gap: the gap of all pairs is that of the touched ones times their share.
    expected = expected_drift(coverage.value * pairwise.value)
    # Both ends together: no correlation of the two is known, so the widest range of words is told.
    ends = ((coverage.low, pairwise.low), (coverage.high, pairwise.high))
    named = [_amount(expected_drift(share * end)) for share, end in ends if math.isfinite(share * end)]
    named = named or [_amount(expected)]
    amount = named[0] if named[0] == named[-1] else f"{named[0]} to {named[-1]}"
    if doubt and amount != "little":
        return f"Cannot tell: {doubt}. What it read: {told} on {on}; {read}."
    first = f"Expect {amount} drift: {told} on {on}; {read}."
    rests = (
        f"Ground: in the embedded experiments DPO on pairs of which none, half and all were opposed drifted by "
        f"{DRIFTS[0]:.3f}, {DRIFTS[1]:.3f} and {DRIFTS[2]:.3f} (noise {NOISE:.3f}). Here the gap times the coverage, "
        f"{coverage.value * pairwise.value:.3f}, is the share of all pairs, which gives {expected:.2f} if the pairs "
        "that could not be read are like the others. For other models and data this is an extrapolation."
    )
    return f"{first} {_way(gap, amount)} {rests}"


def _way(gap: ValueGap, amount: str) -> str:
    """Which way the pairs point, and whether they contradict each other."""
    if amount != "little" and gap.marginal.value < _CANCELLED * gap.pairwise.value:
        return (
            f"The pairs contradict each other (marginal gap {_short(gap.marginal)}); in the experiments all "
            "pointed one way, so less drift is likely."
        )
    if abs(gap.direction.value) < _NO_WAY or gap.direction.low <= 0 <= gap.direction.high:
        return f"The pairs point neither way for certain (direction {_short(gap.direction)})."
    side = "supports" if gap.direction.value > 0 else "opposes"
    return f"The chosen side {side} more (direction {_short(gap.direction)})."


_UNKNOWN = "how the judge errs on such texts is not known, and its errors alone make up a gap"


def _true_gap(overall: Findings, gap: ValueGap) -> tuple[Estimate, str]:
    """The pairwise gap that counts, and why a verdict on it is in doubt (empty where it is not).

    With people's labels theirs; else with the judge's errors taken off, where they are known; in the embedded world,
    whose judge was checked on planted stances, as it was read.
    """
    if overall.labelled is not None:
        return overall.labelled.estimates["pairwise"], ""
    if overall.error is None:
        return gap.pairwise, ""
    if not math.isfinite(overall.error.adjusted.value):
        return gap.pairwise, _UNKNOWN
    doubt = "the judge's errors alone explain the gap" if overall.error.explained else ""
    return overall.error.adjusted, doubt


def _beside(found: Findings) -> str:
    """What stands beside a gap that was read: what of it is the judge's error, and what people's labels say."""
    told = ""
    if found.error is not None and math.isfinite(found.error.of_error.value):
        told = (
            f" (where the sides of all pairs agreed, errors like those on the labelled texts would make up "
            f"{_short(found.error.of_error)}; with them taken off {_short(found.error.adjusted)})"
        )
    if found.labelled is not None:
        told += f", {_short(found.labelled.estimates['pairwise'])} with people's labels of {found.labelled.count} rows"
    return told


def _of_answers(audit: Audit, on: str) -> str:
    overall = audit.overall
    scored = overall.judged - overall.unscored
    read = f"{scored:,} of the {overall.judged:,} answers that touch a proposition could be read"
    if not scored:
        return f"Cannot tell: no answer is scored; {on.replace('rows (', 'rows touch a proposition (')}."
    mix = overall.mix
    if overall.labelled is not None:
        mix = tuple(overall.labelled.estimates[stance.value] for stance in STANCES)
        read = f"{read}; with people's labels of {overall.labelled.count} rows"
    shares = ", ".join(f"{stance.value} {_short(own)}" for stance, own in zip(STANCES, mix, strict=True))
    if scored < FEWEST:
        return f"Cannot tell from {scored} scored answers (at least {FEWEST}; {read}): {shares} on {on}."
    coverage = overall.proposition_coverage.value
    if coverage >= _WHOLE:
        first = f"Expect stances near those of the answers: {shares} on {on}; {read}."
    else:
        way = f"about {_percent(coverage)} of the way from the model's own to those of the answers"
        first = f"Expect stances to go {way}: {shares} on {on}; {read}."
    return (
        f"{first} Ground: in the embedded experiments SFT on a planted mix came within {SFT_DISTANCE:.2f} of it for "
        "every stance. There every row touched a proposition; that the way shrinks with coverage is assumed, not "
        "measured. For other models and data this is an extrapolation."
    )


def _amount(drift: float) -> str:
    return "little" if drift <= LITTLE else "some" if drift <= SOME else "much"


def _short(estimate: object) -> str:
    value, low, high = (getattr(estimate, name) for name in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if math.isfinite(low) else f"{value:.2f}"


def _percent(value: float) -> str:
    """A share in per cent, to two digits where it is small.

    >>> _percent(0.0431), _percent(0.004), _percent(0.0)
    ('4.3 %', '0.4 %', '0 %')
    """
    return f"{100 * value:.2g} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"
