"""What can be said of a topic: moved, not moved, or cannot tell; and what would have been found.

A change that was not found is no change that is not there. So a topic has *moved* where its test has a star, has
*not moved* where the whole interval of its drift lies within the margin (equivalence; Schuirmann 1987, with an
interval of 95 % and not of 90 %), and else nothing *can be told*. Where the share of unscored answers has changed,
neither is said that they alone could undo: the star is withheld (`stars`), and what they could hide is added to the
upper end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS, Error

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MARGIN = 0.1  # drift that is too small to matter: one answer in ten has gone elsewhere
POWER = 0.8
HELP = ("propositions", "prompts", "samples")  # of which twice as many could be asked
MOVED, NOT_MOVED, CANNOT_TELL = "moved", "not moved", "cannot tell"


def verdicts(significant: Bools, high: Floats, margin: float) -> NDArray[np.str_]:
    """The verdict on every topic.

    Args:
        significant: (...) whether its drift has a star.
        high: (...) the upper end of the interval of its drift; NaN where there is none.
        margin: the drift that is too small to matter.

    >>> verdicts(np.array([True, False, False, False]), np.array([0.3, 0.08, 0.2, np.nan]), 0.1).tolist()
    ['moved', 'not moved', 'cannot tell', 'cannot tell']
    """
    with np.errstate(invalid="ignore"):
        within = high <= margin
    return np.where(significant, MOVED, np.where(within, NOT_MOVED, CANNOT_TELL))


def minimum_detectable(error: Error, critical: float, power: float = POWER) -> Floats:
    """(C,) the least drift of a topic that gets a star with this power; NaN where none would.

    A drift of x moves one stance by x and another by -x; the error that counts is that of the surer of the two: of
    the second largest of three. Its t then has a noncentral law with noncentrality ``x / error``.

    Args:
        error: of the change, by the units that are flipped.
        critical: the largest u of the family by chance, see `flips.adjusted`.
        power: the share of such stages in which it would be found.
    """
    from scipy.special import nctdtrinc  # scipy.stats takes a second to import

    units = error.units.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # u = sqrt(G) is all that G units can show: every one of them changed alike.
        t = np.where(units > critical**2, critical * np.sqrt(units - 1) / np.sqrt(units - critical**2), np.nan)
        deviation = np.sort(error.deviation, axis=-1)[:, 1]
        least = nctdtrinc(error.freedom, 1 - power, t) * deviation
    return np.where((units >= FEW_UNITS) & (deviation > 0) & (least <= 1), least, np.nan)


def helped(tested: Error, between: Error, sampling: Error, critical: float, *, prompts_are_units: bool) -> Floats:
    """(C, 3) the least drift that would be found with twice as many propositions, prompts of each, or samples.

    Twice as many samples halve what comes of drawing responses, twice as many prompts also what comes of the prompts'
    differences, and twice as many propositions all of it, and there are more units to turn round.

    Args:
        tested: the error of the change, by the units that are flipped.
        between: by the spread of prompts within their propositions (responses are in it).
        sampling: by drawing responses.
        critical: as for `minimum_detectable`.
        prompts_are_units: whether prompts are flipped, so that more of them are more units.
    """
    twice = Error(tested.covariance / 2, 2 * tested.freedom + 1, 2 * tested.units)

    def without(part: Error) -> Error:
        spread = np.diagonal(tested.covariance, axis1=1, axis2=2)
        saved = np.minimum(np.diagonal(part.covariance, axis1=1, axis2=2) / 2, spread / 2)
        return Error(tested.covariance - np.einsum("cs,st->cst", saved, np.eye(3)), tested.freedom, tested.units)

    ways = (twice, twice if prompts_are_units else without(between), without(sampling))
    return np.stack([minimum_detectable(error, critical) for error in ways], axis=-1)
