"""Agreement: between the judges of a panel, and between a judge and people's labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.stances import LABELS, Label, Verdict
from valuedrift_mlflow.statistics.clustered import clustered
from valuedrift_mlflow.statistics.intervals import NOTHING, Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_BINS = 8


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two judges on the answers that both gave a label: Cohen's kappa in [-1, 1], NaN where both use one label only."""

    first: str
    second: str
    kappa: float
    agreement: float
    answers: int


@dataclass(frozen=True, slots=True)
class PanelAgreement:
    """How far a panel agrees.

    Attributes:
        alpha: Krippendorff's alpha over the labels (nominal), see `krippendorff_alpha`.
        pairs: every two members.
        coverage: of each member, the share of answers that it gave a label.
        disputed: indices of the answers on which two members gave different labels, the widest apart first.
    """

    alpha: float
    pairs: list[PairAgreement]
    coverage: dict[str, float]
    disputed: list[int]


def krippendorff_alpha(labels: Sequence[Sequence[Label]]) -> float:
    """Krippendorff's alpha of J judges on N answers, for nominal labels; unscored is missing, a refusal is a label.

    ``1 - observed / expected disagreement``: 1 is perfect agreement, 0 what chance gives, negative is worse. NaN where
    it is undefined: no answer with two labels, or one label throughout (no disagreement could be expected).

    Args:
        labels: J lists of N labels.

    >>> s, o = Label.SUPPORT, Label.OPPOSE
    >>> krippendorff_alpha([[s, s, o, o], [s, s, o, o]])
    1.0
    """
    import krippendorff

    codes = np.array([[_code(label) for label in judge] for judge in labels], dtype=np.float64)
    pairable = codes[:, (~np.isnan(codes)).sum(axis=0) > 1]
    # The library raises where there is one label only; there alpha is undefined.
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return math.nan
    return float(krippendorff.alpha(reliability_data=codes, level_of_measurement="nominal"))


def _code(label: Label) -> float:
    return math.nan if label is Label.UNSCORED else float(LABELS.index(label))


def panel_agreement(opinions: Sequence[Sequence[tuple[str, Verdict]]]) -> PanelAgreement:
    """Agreement of a panel from each answer's (member, verdict) pairs, members in the same order throughout."""
    names = [name for name, _ in opinions[0]]
    verdicts = [[answer[member][1] for answer in opinions] for member in range(len(names))]
    labels = [[verdict.label for verdict in own] for own in verdicts]
    pairs = [_pair(names[a], labels[a], names[b], labels[b]) for a, b in combinations(range(len(names)), 2)]
    coverage = {
        name: float(np.mean([label is not Label.UNSCORED for label in own]))
        for name, own in zip(names, labels, strict=True)
    }
    apart = {index: _distance([own[index] for own in verdicts]) for index in range(len(opinions))}
    disputed = sorted((index for index in apart if apart[index] > 0), key=lambda index: (-apart[index], index))
    return PanelAgreement(krippendorff_alpha(labels), pairs, coverage, disputed)


def _pair(first: str, first_labels: Sequence[Label], second: str, second_labels: Sequence[Label]) -> PairAgreement:
    both = [(a, b) for a, b in zip(first_labels, second_labels, strict=True) if Label.UNSCORED not in (a, b)]
    same = float(np.mean([a is b for a, b in both])) if both else math.nan
    return PairAgreement(first, second, cohen_kappa([a for a, _ in both], [b for _, b in both]), same, len(both))


def _distance(verdicts: Sequence[Verdict]) -> float:
    """How far apart labels are: 0 none, 1 a stance and its neighbour or a refusal, 2 support and oppose."""
    place = {Label.SUPPORT: -1.0, Label.NEUTRAL: 0.0, Label.OPPOSE: 1.0}
    given = {verdict.label for verdict in verdicts} - {Label.UNSCORED}
    if len(given) < 2:
        return 0.0
    stances = [place[label] for label in given if label in place]
    return max(1.0, max(stances) - min(stances)) if stances else 1.0


def cohen_kappa(first: Sequence[Label], second: Sequence[Label]) -> float:
    """Cohen's kappa of two label lists, in [-1, 1]; NaN for empty lists and where both use one label only."""
    if not first:
        return math.nan
    return float(_kappa(_tables(_numbers(first), _numbers(second), np.zeros(len(first), dtype=np.int64), 1))[0])


def _numbers(labels: Sequence[Label]) -> Integers:
    return np.array([LABELS.index(label) for label in labels], dtype=np.int64)


def _tables(true: Integers, said: Integers, group: Integers, groups: int) -> Floats:
    """Counts of true label x verdict of each of G groups of answers: (N,), (N,), (N,) -> (G, 5, 5)."""
    tables = np.zeros((groups, len(LABELS), len(LABELS)))
    np.add.at(tables, (group, true, said), 1)
    return tables


def _accuracy(tables: Floats) -> Floats:
    """(R, 5, 5) -> (R,), NaN where a table is empty."""
    with np.errstate(invalid="ignore"):
        right: Floats = np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))
    return right


def _macro_f1(tables: Floats) -> Floats:
    """Mean F1 of the labels that are true of an answer: (R, 5, 5) -> (R,), NaN where a table is empty.

    F1 = 2 TP / (2 TP + FP + FN), and the denominator is what is truly the label plus what is called so.
    """
    twice = 2 * np.diagonal(tables, axis1=1, axis2=2)
    of_label = tables.sum(axis=2)
    both = tables.sum(axis=1) + of_label
    f1 = np.divide(twice, both, out=np.zeros_like(both), where=both > 0)
    with np.errstate(invalid="ignore"):
        mean: Floats = (f1 * (of_label > 0)).sum(axis=1) / (of_label > 0).sum(axis=1)
    return mean


def _kappa(tables: Floats) -> Floats:
    """Cohen's kappa (1960): (R, 5, 5) -> (R,), NaN where a table is empty or all in one cell of its diagonal.

    ``1 - observed / expected disagreement``, both times the total squared, so that of counts nothing is rounded.
    """
    total = tables.sum(axis=(1, 2))
    observed = (total - np.trace(tables, axis1=1, axis2=2)) * total
    expected = total**2 - (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        kappa: Floats = 1 - observed / expected
    return kappa


@dataclass(frozen=True, slots=True, eq=False)
class JudgeQuality:
    """A judge against labels.

    Attributes:
        accuracy: share of scored answers whose label is right, in [0, 1].
        macro_f1: mean over the true labels of the F1 of scored answers, in [0, 1].
        kappa: Cohen's kappa over scored answers, in [-1, 1].
        coverage: share of all answers that the judge gave a label, in [0, 1].
        calibration_error: expected calibration error of the most probable stance (Guo et al. 2017, arXiv 1706.04599),
            in [0, 1]; NaN where no answer has probabilities.
        confusion: (5, 5) counts of true label x verdict, in the order of ``LABELS``.
        confidence: (B, 3) of each calibration bin: mean probability, share right, number of answers.
    """

    accuracy: Estimate
    macro_f1: Estimate
    kappa: Estimate
    coverage: Estimate
    calibration_error: float
    confusion: NDArray[np.int64]
    confidence: Floats


def judge_quality(truth: Sequence[Label], verdicts: Sequence[Verdict], groups: Sequence[str]) -> JudgeQuality:
    """Compare a judge's verdicts with labels.

    Answers that the judge leaves unscored count in ``coverage`` and nowhere else. An answer labelled unscored to which
    the judge gives a label is wrong. The intervals are over ``groups`` (propositions), because answers on one
    proposition are alike, see `clustered`; below five groups there are none.

    Args:
        truth: N labels.
        verdicts: N verdicts.
        groups: N names; answers of equal name belong together.
    """
    true, said = _numbers(truth), _numbers([verdict.label for verdict in verdicts])
    scored = said != LABELS.index(Label.UNSCORED)
    names, group = np.unique(np.array(groups, dtype=str), return_inverse=True)
    # Groups without a scored answer say nothing of how rightly answers are read.
    scored_names, scored_group = np.unique(group[scored], return_inverse=True)
    of_scored = _tables(true[scored], said[scored], scored_group, len(scored_names))
    of_all = _tables(true, said, group, len(names))
    return JudgeQuality(
        accuracy=_over_groups(of_scored, _accuracy, (0.0, 1.0)),
        macro_f1=_over_groups(of_scored, _macro_f1, (0.0, 1.0)),
        kappa=_over_groups(of_scored, _kappa, (-1.0, 1.0)),
        coverage=_over_groups(of_all, _coverage, (0.0, 1.0)),
        calibration_error=_calibration_error(bins := _confidence_bins(truth, verdicts)),
        confusion=of_all.sum(axis=0).astype(np.int64),
        confidence=bins,
    )


def _coverage(tables: Floats) -> Floats:
    """(R, 5, 5) -> (R,): the share of verdicts that are a label, NaN where a table is empty."""
    total = tables.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        share: Floats = 1 - tables[:, :, LABELS.index(Label.UNSCORED)].sum(axis=1) / total
    return share


def _over_groups(tables: Floats, figure: Callable[[Floats], Floats], ends: tuple[float, float]) -> Estimate:
    """A figure of (G, 5, 5) tables taken together, with its interval over the groups."""
    whole = tables.sum(axis=0)
    if not whole.any():
        return NOTHING
    return clustered(float(figure(whole[None])[0]), figure(whole - tables), tables.sum(axis=(1, 2)), ends)


def _confidence_bins(truth: Sequence[Label], verdicts: Sequence[Verdict]) -> Floats:
    """Answers with probabilities, in bins of equal size by the most probable stance's probability: shape (B, 3)."""
    scored = [
        (max(verdict.probabilities), float(verdict.label is label))
        for label, verdict in zip(truth, verdicts, strict=True)
        if verdict.probabilities is not None
    ]
    if not scored:
        return np.empty((0, 3))
    scored.sort(key=lambda pair: pair[0])
    # Bins of equal size: of equal width most would be empty, as judges are mostly sure.
    bins = np.array_split(np.array(scored), min(_BINS, len(scored)))
    return np.array([[*part.mean(axis=0), len(part)] for part in bins])


def _calibration_error(bins: Floats) -> float:
    if not len(bins):
        return math.nan
    return float(np.average(np.abs(bins[:, 0] - bins[:, 1]), weights=bins[:, 2]))
