"""A panel: several judges read every answer, and what they agree on is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.stances import REFUSAL, UNSCORED, Answer, Label, Spent, Verdict


class Panel:
    """The joint verdict of several judges; each one's own is kept in ``Verdict.opinions``."""

    def __init__(self, members: Sequence[Judge]) -> None:
        """Keep the members, in order."""
        self.members = tuple(members)
        self.name = ", ".join(member.name for member in members)

    @property
    def version(self) -> str:
        """A hash of the members and their versions, 12 hex digits."""
        return hashlib.sha256("\n".join(map(identity, self.members)).encode()).hexdigest()[:12]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One joint verdict per answer, in the same order; see `joint`."""
        # All answers to each member at once: those on servers and in memory work in batches.
        columns = [member.judge(answers) for member in self.members]
        names = [member.name for member in self.members]
        return [joint(tuple(zip(names, opinions, strict=True))) for opinions in zip(*columns, strict=True)]


def joint(opinions: tuple[tuple[str, Verdict], ...]) -> Verdict:
    """What a panel says of one answer.

    Members that leave it unscored abstain. Where more of the others saw a stance than a refusal, the probabilities
    are the mean over those that saw a stance; where more saw a refusal, it is one; with as many on both sides, or
    nobody left, it is unscored.
    """
    verdicts = [verdict for _, verdict in opinions]
    scored = [verdict.probabilities for verdict in verdicts if verdict.probabilities is not None]
    refusals = sum(verdict.label is Label.REFUSAL for verdict in verdicts)
    intensities = [verdict.intensity for verdict in verdicts if verdict.intensity is not None]
    # A mean over both would call half a refusal half a stance.
    if len(scored) > refusals:
        base = Verdict.of(np.mean(scored, axis=0), float(np.mean(intensities)) if intensities else None)
    else:
        base = REFUSAL if refusals > len(scored) else UNSCORED
    reasons = [f"{name}: {verdict.reason}" for name, verdict in opinions if verdict.reason]
    return Verdict(
        base.label,
        base.probabilities,
        base.intensity,
        reason="; ".join(reasons) if base.label is Label.UNSCORED else "",
        failed=any(verdict.failed for verdict in verdicts),
        spent=sum((verdict.spent for verdict in verdicts if not verdict.cached), Spent()),
        cached=False,
        opinions=opinions,
    )
