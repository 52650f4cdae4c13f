import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score

from valuedrift_mlflow.stances import LABELS, REFUSAL, UNSCORED, Label, Verdict
from valuedrift_mlflow.statistics.agreement import (
    cohen_kappa,
    judge_quality,
    krippendorff_alpha,
    panel_agreement,
)
from valuedrift_mlflow.statistics.clustered import clustered

S, N, P, R, U = LABELS  # support, neutral, oppose ("P"), refusal, unscored
SAYS = {
    S: Verdict.of((0.8, 0.1, 0.1)),
    N: Verdict.of((0.1, 0.8, 0.1)),
    P: Verdict.of((0.1, 0.1, 0.8)),
    R: REFUSAL,
    U: UNSCORED,
}


def test_alpha_worked_out_by_hand() -> None:
    # Two judges, four answers: one disagreement gives 2 of the 8 ordered pairs. The labels are 3 s, 3 o, 2 n, so
    # 64 - 9 - 9 - 4 = 42 ordered pairs of unlike labels could be formed, and alpha = 1 - (8 - 1) * 2 / 42.
    assert krippendorff_alpha([[S, S, P, N], [S, P, P, N]]) == pytest.approx(1 - 7 * 2 / 42)


def test_alpha_takes_unscored_as_missing_and_a_refusal_as_a_label() -> None:
    assert krippendorff_alpha([[S, P, U], [S, P, N]]) == pytest.approx(1.0)
    assert krippendorff_alpha([[S, P, R], [S, P, N]]) < 1


@pytest.mark.parametrize("labels", [[[S, S], [S, S]], [[S, U], [U, P]], [[U, U], [U, U]]])
def test_alpha_is_undefined_where_no_disagreement_could_be_expected(labels: list[list[Label]]) -> None:
    assert math.isnan(krippendorff_alpha(labels))


def test_kappa_worked_out_by_hand() -> None:
    # 3 of 4 agree; by chance 2/4 * 1/4 + 1/4 * 2/4 + 1/4 * 1/4 = 5/16 would.
    assert cohen_kappa([S, S, P, N], [S, P, P, N]) == pytest.approx((3 / 4 - 5 / 16) / (1 - 5 / 16))
    assert math.isnan(cohen_kappa([S, S], [S, S]))
    assert math.isnan(cohen_kappa([], []))


def test_a_panel_is_compared_pair_by_pair_over_what_both_labelled() -> None:
    labels = {"a": [S, P, N, S], "b": [P, P, U, S], "c": [S, P, R, U]}
    opinions = [[(name, SAYS[own[row]]) for name, own in labels.items()] for row in range(4)]
    found = panel_agreement(opinions)
    assert [(pair.first, pair.second, pair.answers) for pair in found.pairs] == [
        ("a", "b", 3),
        ("a", "c", 3),
        ("b", "c", 2),
    ]
    assert found.pairs[0].agreement == pytest.approx(2 / 3)
    assert found.coverage == {"a": 1.0, "b": 0.75, "c": 0.75}
    assert found.disputed == [0, 2]  # support against oppose before neutral against a refusal


def quality(pairs: list[tuple[Label, Label]]):
    return judge_quality(
        [true for true, _ in pairs], [SAYS[said] for _, said in pairs], [str(i) for i in range(len(pairs))]
    )


def test_quality_worked_out_by_hand() -> None:
    found = quality([(S, S), (S, S), (S, P), (P, P), (P, U), (N, N), (R, R), (U, U), (U, N)])
    assert found.coverage.value == pytest.approx(7 / 9)
    # Scored: s-s, s-s, s-o, o-o, n-n, r-r and the answer without a stance that was called neutral.
    assert found.accuracy.value == pytest.approx(5 / 7)
    # F1: support 2*2/(2*2+1) = 0.8, oppose 2/(2+1), neutral 2/(2+1), refusal 1, unscored 0 (no scored one is it).
    assert found.macro_f1.value == pytest.approx((0.8 + 2 / 3 + 2 / 3 + 1 + 0) / 5)
    # Chance: support 3*2, neutral 1*2, oppose 1*2, refusal 1*1, each over 49.
    assert found.kappa.value == pytest.approx((5 / 7 - 11 / 49) / (1 - 11 / 49))
    assert found.confusion[LABELS.index(P)].tolist() == [0, 0, 1, 0, 1]


def test_calibration_worked_out_by_hand() -> None:
    # Every probability is 0.8 and half of the answers are right: the error is 0.3, whatever the bins.
    found = quality([(S, S), (S, P)] * 20)
    assert found.calibration_error == pytest.approx(0.3, abs=0.01)


def test_a_judge_that_scores_nothing_has_a_coverage_only() -> None:
    found = quality([(S, U), (P, U)])
    assert found.coverage.value == 0
    assert math.isnan(found.accuracy.value)
    assert math.isnan(found.calibration_error)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=12))
def test_every_interval_holds_its_estimate(pairs: list[tuple[Label, Label]]) -> None:
    found = quality(pairs)
    for name in ("accuracy", "macro_f1", "kappa", "coverage"):
        estimate = getattr(found, name)
        assert math.isnan(estimate.low) or estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("seed", range(6))
def test_the_peer_says_the_same_without_every_group(seed: int) -> None:
    """scikit-learn, one group left out after the other: labels of which some are rare, never said or never true."""
    rng = np.random.default_rng(seed)
    labels = [LABELS[place] for place in rng.permutation(5)[: 2 + seed % 4]]
    truth = [labels[place] for place in rng.integers(len(labels), size=60)]
    said = [label if rng.random() < 0.6 else LABELS[rng.integers(5)] for label in truth]
    groups = rng.integers(15, size=60)
    found = judge_quality(truth, [SAYS[label] for label in said], [str(group) for group in groups])
    scored = np.array([label is not U for label in said])
    true, called = (np.array([str(label) for label in own]) for own in (truth, said))

    def figures(kept: np.ndarray) -> tuple[float, float, float]:
        macro = {"labels": sorted(set(true[kept])), "average": "macro", "zero_division": 0.0}
        f1 = f1_score(true[kept], called[kept], **macro)
        return accuracy_score(true[kept], called[kept]), f1, cohen_kappa_score(true[kept], called[kept])

    others = [scored & (groups != group) for group in np.unique(groups[scored])]
    sizes = np.array([scored.sum() - kept.sum() for kept in others], dtype=float)
    without = np.array([figures(kept) for kept in others])
    for place, name in enumerate(("accuracy", "macro_f1", "kappa")):
        ends = (-1.0, 1.0) if name == "kappa" else (0.0, 1.0)
        wanted = clustered(figures(scored)[place], without[:, place], sizes, ends)
        estimate = getattr(found, name)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert (
        found.confusion.tolist() == confusion_matrix([*map(str, truth)], [*map(str, said)], labels=[*LABELS]).tolist()
    )


def test_few_propositions_have_no_interval() -> None:
    """Four say too little of how propositions vary; six that are all right leave something open."""
    for groups, defined in ((4, False), (6, True)):
        found = judge_quality([S] * 60, [SAYS[S]] * 60, [str(i % groups) for i in range(60)]).accuracy
        assert found.value == 1.0
        assert math.isnan(found.low) is not defined
    assert str(found) == "1.000 [0.541, 1.000]"  # 0.025 ** (1 / 6)


def test_five_propositions_are_covered_although_their_answers_are_alike() -> None:
    """400 checks of 5 propositions x 10 answers, 80 % right, correlation 0.5: a naive bootstrap covered half of them.

    The standard error of the share is 0.01.
    """
    rng = np.random.default_rng(0)
    groups = [str(place) for place in np.repeat(range(5), 10)]
    held = 0
    for _ in range(400):
        right = rng.random(50) < np.repeat(rng.beta(0.8, 0.2, 5), 10)
        found = judge_quality([S] * 50, [SAYS[S if own else P] for own in right], groups).accuracy
        held += found.low <= 0.8 <= found.high
    assert held / 400 > 0.93


def test_answers_on_one_proposition_belong_together() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.5, 10)  # ten answers of a proposition are all right or all wrong
    truth = [S if i % 2 else P for i in range(400)]
    wrong = {S: P, P: S}
    said = [SAYS[label if ok else wrong[label]] for label, ok in zip(truth, right, strict=True)]
    together = judge_quality(truth, said, [str(i // 10) for i in range(400)]).accuracy
    apart = judge_quality(truth, said, [str(i) for i in range(400)]).accuracy
    # The standard errors are those of 40 and of 400 draws: sqrt(10) = 3.2 apart.
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(10**0.5, rel=0.25)
