"""Stances and verdicts: their names, their order and their shapes are defined here and nowhere else.

Every array whose last axis has length 3 holds ``(support, neutral, oppose)`` in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RefusalRule = Literal["neutral", "exclude"]


class Stance(StrEnum):
    """The position a response takes towards a proposition."""

    SUPPORT = "support"
    NEUTRAL = "neutral"
    OPPOSE = "oppose"


STANCES: tuple[Stance, ...] = tuple(Stance)


class Label(StrEnum):
    """What a judge can say of a response: a stance, a refusal to answer, or that it cannot tell."""

    SUPPORT = "support"
    NEUTRAL = "neutral"
    OPPOSE = "oppose"
    REFUSAL = "refusal"
    UNSCORED = "unscored"


_ROUNDED = 1e-4  # by which three probabilities that were written with few digits may miss 1
LABELS: tuple[Label, ...] = tuple(Label)


def most_probable(probabilities: tuple[float, float, float]) -> Label:
    """The most probable stance, the earlier one in a tie.

    >>> str(most_probable((0.4, 0.2, 0.4)))
    'support'
    """
    support, neutral, oppose = probabilities
    # Compared here: numpy would take most of the time of a verdict that is read again.
    return Label.OPPOSE if oppose > max(support, neutral) else Label.NEUTRAL if neutral > support else Label.SUPPORT


@dataclass(frozen=True, slots=True)
class Answer:
    """One response together with what a judge needs to read it.

    ``polarity`` is +1 where agreeing with the prompt supports the proposition, -1 where agreeing opposes it, and None
    where nobody has said which.
    """

    proposition: str
    prompt: str
    response: str
    polarity: int | None = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What verdicts have cost: requests to a server, tokens of prompts and completions, and dollars where known."""

    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.dollars + other.dollars)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's reading of one response.

    Attributes:
        label: the stance, a refusal, or unscored.
        probabilities: (support, neutral, oppose), summing to 1; None for refusals and unscored responses.
        intensity: how strongly the stance is held, from 0 (neutral) to 1; None where the judge does not tell.
        reason: why a response is unscored, where the judge can say.
        failed: no verdict could be had although the judge was asked (a server that stayed silent): never cached.
        spent: what this verdict cost when it was made.
        cached: the verdict was paid for earlier.
        opinions: for a panel, each member's name and verdict.
    """

    label: Label
    probabilities: tuple[float, float, float] | None = None
    intensity: float | None = None
    reason: str = ""
    failed: bool = False
    spent: Spent = Spent()
    cached: bool = False
    opinions: tuple[tuple[str, Verdict], ...] = ()

    @classmethod
    def of(cls, probabilities: Sequence[float], intensity: float | None = None, spent: Spent = Spent()) -> Verdict:
        """A scored verdict: its label is the most probable stance (the earlier one in a tie)."""
        support, neutral, oppose = (float(p) for p in probabilities)
        shares = (support, neutral, oppose)
        return cls(most_probable(shares), shares, intensity, spent=spent)

    def vector(self, refusal: RefusalRule = "neutral") -> tuple[float, float, float] | None:
        """Stance probabilities as they enter a mean; None where the response is left out.

        A refusal counts as fully neutral under ``refusal="neutral"`` and is left out under ``"exclude"``.
        """
        if self.label is Label.REFUSAL:
            return (0.0, 1.0, 0.0) if refusal == "neutral" else None
        return self.probabilities


def check_kept(label: Label, shares: Sequence[object] | None) -> None:
    """Make sure that what was read again can be a verdict: a damaged file may hold numbers that none can have.

    Raises:
        ValueError: shares that are no probabilities of the three stances, or none where a stance was taken.

    >>> check_kept(Label.SUPPORT, (0.9, 0.2, 0.1))
    Traceback (most recent call last):
    ValueError: support with the probabilities (0.9, 0.2, 0.1)
    """
    if shares is None:
        possible = label in (Label.REFUSAL, Label.UNSCORED)
    else:
        numbers = [float(one) for one in shares if isinstance(one, int | float) and not isinstance(one, bool)]
        possible = len(numbers) == len(shares) == len(STANCES) and label.value in [stance.value for stance in STANCES]
        possible = possible and all(0 <= number <= 1 for number in numbers) and abs(sum(numbers) - 1) < _ROUNDED
    if not possible:
        raise ValueError(f"{label.value} with the probabilities {shares}")


UNSCORED = Verdict(Label.UNSCORED)
REFUSAL = Verdict(Label.REFUSAL)


def total_variation(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total variation distance, half the L1 distance over the last axis.

    Shapes ``(..., 3), (..., 3) -> (...)``; in [0, 1] for distributions.

    >>> float(total_variation(np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.0])))
    0.5
    """
    distance: NDArray[np.float64] = 0.5 * np.abs(p - q).sum(axis=-1)
    return distance


Mix = tuple[float, float, float]


def quotas(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to ``total`` and follow ``shares`` (largest remainders).

    >>> quotas(10, (0.7, 0.2, 0.1)), quotas(2, (1 / 3, 1 / 3, 1 / 3))
    ([7, 2, 1], [1, 1, 0])
    """
    exact = np.asarray(shares, dtype=float) * total
    # The last bits of a product such as 0.29 * 100 would take one away.
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]
