"""Which changes get a star, which stars the unscored answers could undo, and what is left of a starred change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.family import Family
from valuedrift_mlflow.statistics.selection import given_star
from valuedrift_mlflow.statistics.units import Error
from valuedrift_mlflow.statistics.unscored import least_figures

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One topic as it was tested.

    Attributes:
        answers: (C, n, S, 3) NaN where unscored or not asked.
        asked: (C, n, S) whether there is an answer.
        member: (n, G) which prompt is in which unit that is flipped.
        figure: (C, 3) u, see `flips`.
        units: (C,) how many units were scored.
        change: the error of its changes.
    """

    answers: Floats
    asked: Bools
    member: Floats
    figure: Floats
    units: NDArray[np.int64]
    change: Error


@dataclass(frozen=True, slots=True, eq=False)
class Stars:
    """The stars of a stage; what is not starred has NaN where a figure supposes a star.

    Attributes:
        significant: (C, T, 3) adjusted p at most alpha, and not withheld.
        withheld: (C, T, 3) adjusted p at most alpha, but unscored answers alone could undo it.
        selected: (C, T, 3) changes, given their star.
        selected_ci: (C, T, 3, 2) their intervals.
        topic_selected: (C, T) total variations, given the star of the stance that changed most.
        topic_selected_ci: (C, T, 2) their intervals.
    """

    significant: Bools
    withheld: Bools
    selected: Floats
    selected_ci: Floats
    topic_selected: Floats
    topic_selected_ci: Floats


def stars(
    topics: Sequence[Candidate], family: Family, unscored_changed: Bools, magnitude: Floats, alpha: float
) -> Stars:
    """Give the stars of T topics.

    Args:
        topics: T of C checkpoints.
        family: their figures as one family.
        unscored_changed: (C, T) whether the share of unscored answers has changed.
        magnitude: (C, T, 3) their changes.
        alpha: level of tests; intervals have level ``1 - alpha``.
    """
    found = family.p_value <= alpha
    withheld = found & unscored_changed[..., None]
    for t in np.flatnonzero(withheld.any(axis=(0, 2))).tolist():
        topic = topics[t]
        least = least_figures(topic.answers, topic.asked, topic.member, np.sign(magnitude[:, t]))
        withheld[:, t] &= ~(least >= family.cutoff[:, t])
    significant = found & ~withheld
    # The total variation is the largest of three changes. Where another stance has the star, its size is as measured.
    largest = np.nan_to_num(np.abs(magnitude)).max(axis=-1, keepdims=True) <= np.abs(magnitude)
    largest &= significant.sum(axis=-1, keepdims=True) > 0
    at = significant | largest
    selected, selected_ci = np.full(magnitude.shape, np.nan), np.full((*magnitude.shape, 2), np.nan)
    if at.any():
        cutoff = np.where(significant, family.cutoff, 0.0)
        selected[at], selected_ci[at] = _given(topics, cutoff, magnitude, at, alpha)
    place = np.argmax(largest, axis=-1)[..., None]
    sign = np.sign(np.take_along_axis(magnitude, place, axis=-1))[..., 0]
    distance = sign * np.take_along_axis(selected, place, axis=-1)[..., 0]
    ends = np.take_along_axis(selected_ci, place[..., None], axis=2)[:, :, 0] * sign[..., None]
    selected[~significant], selected_ci[~significant] = np.nan, np.nan
    return Stars(
        significant=significant,
        withheld=withheld,
        selected=np.clip(selected, -1.0, 1.0),
        selected_ci=np.clip(selected_ci, -1.0, 1.0),
        topic_selected=np.clip(distance, 0.0, 1.0),
        topic_selected_ci=np.clip(np.sort(ends, axis=-1), 0.0, 1.0),
    )


def _given(
    topics: Sequence[Candidate], cutoff: Floats, magnitude: Floats, at: Bools, alpha: float
) -> tuple[Floats, Floats]:
    """Changes given their star; the cut-off of u in the terms of the t that their intervals go by.

    (C, T, 3) each -> what is told ``at`` M of them, (M,) and (M, 2).
    """
    figure = np.stack([topic.figure for topic in topics], axis=1)[at]
    error = np.stack([topic.change.deviation for topic in topics], axis=1)[at]
    of_topics = np.nonzero(at)[:2]  # units and freedom are those of all three stances
    units = np.stack([topic.units for topic in topics], axis=1)[of_topics].astype(np.float64)
    freedom = np.stack([topic.change.freedom for topic in topics], axis=1)[of_topics]
    reached, needed = _t(figure, units), _t(cutoff[at], units)
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(needed), 1.0, needed / reached)  # all units alike are infinitely sure
    return given_star(magnitude[at], error, freedom, np.abs(magnitude[at]) / error * share, alpha)


def _t(figure: Floats, units: Floats) -> Floats:
    """The figure u of `flips` as t."""
    left = units - figure**2
    with np.errstate(invalid="ignore", divide="ignore"):
        t: Floats = np.where(left > 1e-9, figure * np.sqrt(units - 1) / np.sqrt(left), np.inf)
    return t
