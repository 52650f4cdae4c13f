"""Agreement: between the judges of a panel, and between a judge and people's labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.stances import LABELS, Label, Verdict
from valuedrift_mlflow.statistics.intervals import NOTHING, Estimate, drawn_counts

Floats = NDArray[np.float64]
_RESAMPLES = 500
_BINS = 8
_FEWEST_GROUPS = 10


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


def cohen_kappa(first: Sequence[Label], second: Sequence[Label], weights: Floats | None = None) -> float:
    """Cohen's kappa of two label lists, in [-1, 1]; NaN for empty lists and where both use one label only."""
    from sklearn.metrics import cohen_kappa_score

    if not first or len({*first, *second}) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns where a resample is undefined; it is NaN then
        return float(cohen_kappa_score(list(map(str, first)), list(map(str, second)), sample_weight=weights))


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


def judge_quality(
    truth: Sequence[Label], verdicts: Sequence[Verdict], groups: Sequence[str], seed: int = 0
) -> JudgeQuality:
    """Compare a judge's verdicts with labels.

    Answers that the judge leaves unscored count in ``coverage`` and nowhere else. An answer labelled unscored to which
    the judge gives a label is wrong. The intervals are percentile bootstraps over ``groups`` (propositions), because
    answers on one proposition are alike; over single answers where there are fewer than ten groups.

    Args:
        truth: N labels.
        verdicts: N verdicts.
        groups: N names; answers of equal name are resampled together.
        seed: fixes the resamples.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    true = [label.value for label in truth]
    said = [verdict.label.value for verdict in verdicts]
    scored = np.array([verdict.label is not Label.UNSCORED for verdict in verdicts])
    weights = _resampled_weights(groups, seed)

    def kept(labels: Sequence[str]) -> list[str]:
        return [label for label, keep in zip(labels, scored, strict=True) if keep]

    t, s = kept(true), kept(said)
    # Of the true labels alone: one that no answer has would count with an F1 of 0.
    names = sorted(set(t))

    def over_scored(measure: Callable[[Floats], float]) -> Estimate:
        if not t:
            return NOTHING
        return _estimate(measure, weights[:, scored])

    kappas = [Label(label) for label in t], [Label(label) for label in s]
    return JudgeQuality(
        accuracy=over_scored(lambda weight: accuracy_score(t, s, sample_weight=weight)),
        macro_f1=over_scored(
            # With zero_division given, as scikit-learn would warn of every resample without one of the labels.
            lambda weight: f1_score(t, s, labels=names, average="macro", sample_weight=weight, zero_division=0.0)
        ),
        kappa=over_scored(lambda weight: cohen_kappa(*kappas, weight)),
        coverage=_estimate(lambda weight: float(np.average(scored, weights=weight)), weights),
        calibration_error=_calibration_error(bins := _confidence_bins(truth, verdicts)),
        confusion=confusion_matrix(true, said, labels=[label.value for label in LABELS]),
        confidence=bins,
    )


def _resampled_weights(groups: Sequence[str], seed: int) -> Floats:
    """How often each answer is drawn: the answers themselves first, then the resamples, shape (1 + R, N)."""
    # So few groups have hardly any different resamples: the interval would be far too short.
    if len(set(groups)) < _FEWEST_GROUPS:
        groups = [str(index) for index in range(len(groups))]
    names, group = np.unique(np.array(groups, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = drawn_counts(len(names), _RESAMPLES, rng)
    # As weights: an answer that is drawn twice counts twice, and no row is copied.
    return np.concatenate([np.ones((1, len(group))), counts[:, group]])


def _estimate(measure: Callable[[Floats], float], weights: Floats) -> Estimate:
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample may have no scored answer at all: it has no value, and no part in the interval.
        value, *draws = (float(measure(weight)) if weight.any() else math.nan for weight in weights)
    return Estimate.of(value, np.array(draws))


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
