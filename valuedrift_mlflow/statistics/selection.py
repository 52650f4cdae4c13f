"""What is left of a change that was looked at because it had a star.

Of changes near the threshold of a test those get a star that noise has made larger, so starred ones overstate what
happened (``docs/validity.md`` says by how much). Their law given the star is known: an estimate, and an
interval that covers among starred ones as often as it says, come of inverting it (conditional likelihood: Zhong and
Prentice 2008; Fithian, Sun and Taylor 2014). With an estimated error the law of t given a star depends on the unknown
true error. It no longer does given ``V = nu s^2 + (x - theta)^2``, which under theta tells all about that error and
nothing about ``t = (x - theta) / s``; so the inversion is exact for normal units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAR = 60.0  # errors from the estimate within which an end is looked for
HALVINGS = 50


def given_star(estimate: Floats, error: Floats, freedom: Floats, cutoff: Floats, alpha: float) -> tuple[Floats, Floats]:
    """The median-unbiased estimate and the interval of a change, given that its ``|t|`` reached the cut-off.

    Args:
        estimate: (...) changes.
        error: (...) their standard errors.
        freedom: (...) of t.
        cutoff: (...) what ``|estimate / error|`` had to reach; it did.
        alpha: intervals have level ``1 - alpha``.

    Returns:
        (...) the estimate, (..., 2) the interval, which holds it and may reach beyond 0; NaN where an input is.

    >>> given_star(np.array(0.3), np.array(0.06), np.array(9.0), np.array(4.0), 0.05)[0].round(2).item()
    0.29
    """
    sign = np.where(estimate < 0, -1.0, 1.0)
    t = np.abs(estimate) / error
    levels = np.array([0.5, alpha / 2, 1 - alpha / 2]).reshape(3, *(1 for _ in t.shape))
    middle, low, high = _level(t, freedom, np.minimum(cutoff, t), levels)
    ends = np.stack([np.minimum(low, middle), np.maximum(high, middle)], axis=-1) * error[..., None]
    ends = np.where(sign[..., None] < 0, -ends[..., ::-1], ends)
    return middle * error * sign, ends


def _level(t: Floats, freedom: Floats, cutoff: Floats, level: Floats) -> Floats:
    """The true changes, in estimated errors, under which a figure of at least t has these probabilities given a star.

    ``level`` is (L, 1, ...), the others (...); what is told is (L, ...).
    """
    low, high = t - FAR + 0 * level, t + FAR + 0 * level
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = _tail(t, middle, freedom, cutoff) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(np.isnan(t + freedom + cutoff), np.nan, (low + high) / 2)


def _tail(t: Floats, true: Floats, freedom: Floats, cutoff: Floats) -> Floats:
    """P(the figure is at least t | star) for a true change, in units of the estimated error.

    With ``T = sqrt(nu) tan(phi)`` and V held, ``x = theta + sqrt(V) sin(phi)`` and ``s = sqrt(V / nu) cos(phi)``. So
    ``x > c s`` is ``sin(phi - psi) > -r`` with ``tan(psi) = c / sqrt(nu)`` and ``r = theta cos(psi) / sqrt(V)``.
    """
    size = np.sqrt(freedom + (t - true) ** 2)  # sqrt(V)
    psi = np.arctan(cutoff / np.sqrt(freedom))
    r = true * np.cos(psi) / size
    above, observed = _region(r, psi), np.arctan((t - true) / np.sqrt(freedom))
    upper = _mass(above, freedom)
    lower = _mass(_region(-r, psi), freedom)  # the figures below -c, mirrored
    beyond = _mass([(np.maximum(low, observed), high) for low, high in above], freedom)
    with np.errstate(invalid="ignore", divide="ignore"):
        tail: Floats = beyond / (upper + lower)
    return tail


def _region(r: Floats, psi: Floats) -> list[tuple[Floats, Floats]]:
    """The angles in (-pi / 2, pi / 2) with sin(phi - psi) > -r: one piece at the upper end, one at the lower."""
    angle = np.arcsin(np.clip(r, -1.0, 1.0))
    quarter = np.full_like(r, np.pi / 2)
    upper = np.where(r >= 1, -quarter, np.clip(psi - angle, -quarter, quarter))
    lower = np.where(r >= 1, -quarter, np.clip(psi - np.pi + angle, -quarter, quarter))
    return [(upper, quarter), (-quarter, np.minimum(lower, upper))]


def _mass(pieces: list[tuple[Floats, Floats]], freedom: Floats) -> Floats:
    """The probability of pieces of angles, ``T = sqrt(nu) tan(phi)`` being t; tails are kept from cancelling."""
    from scipy.special import stdtr  # scipy.stats takes a second to import

    total = np.zeros_like(freedom)
    for low, high in pieces:
        first, last = np.sqrt(freedom) * np.tan(low), np.sqrt(freedom) * np.tan(high)
        mass = np.where(
            first > 0, stdtr(freedom, -first) - stdtr(freedom, -last), stdtr(freedom, last) - stdtr(freedom, first)
        )
        total = total + np.where(high > low, mass, 0.0)
    return total
