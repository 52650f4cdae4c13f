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
    import valuedrift_mlflow.statistics.agreement as agreement

    draws, agreement._RESAMPLES = agreement._RESAMPLES, 5
    try:
        found = quality(pairs)
    finally:
        agreement._RESAMPLES = draws
    for name in ("accuracy", "macro_f1", "kappa", "coverage"):
        estimate = getattr(found, name)
        assert math.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("seed", range(6))
def test_the_peer_says_the_same_of_every_resample(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn, resample by resample: labels of which some are rare, never said or never true."""
    import valuedrift_mlflow.statistics.agreement as agreement

    monkeypatch.setattr(agreement, "_RESAMPLES", 20)
    rng = np.random.default_rng(seed)
    labels = [LABELS[place] for place in rng.permutation(5)[: 2 + seed % 4]]
    truth = [labels[place] for place in rng.integers(len(labels), size=60)]
    said = [label if rng.random() < 0.6 else LABELS[rng.integers(5)] for label in truth]
    groups = [str(place) for place in rng.integers(15, size=60)]
    found = judge_quality(truth, [SAYS[label] for label in said], groups, seed)
    scored = np.array([label is not U for label in said])
    true = [str(label) for label, keep in zip(truth, scored, strict=True) if keep]
    called = [str(label) for label, keep in zip(said, scored, strict=True) if keep]
    figures = []
    for weight in agreement._resampled_weights(groups, seed)[:, scored]:
        macro = {"labels": sorted(set(true)), "average": "macro", "zero_division": 0.0}
        one = {"sample_weight": weight}
        f1 = f1_score(true, called, **macro, **one)
        figures.append((accuracy_score(true, called, **one), f1, cohen_kappa_score(true, called, **one)))
    for name, (value, *draws) in zip(("accuracy", "macro_f1", "kappa"), zip(*figures, strict=True), strict=True):
        estimate = getattr(found, name)
        low, high = np.nanquantile(draws, [0.025, 0.975])
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-12)
    assert (
        found.confusion.tolist() == confusion_matrix([*map(str, truth)], [*map(str, said)], labels=[*LABELS]).tolist()
    )


def test_answers_on_one_proposition_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.5, 10)  # ten answers of a proposition are all right or all wrong
    truth = [S if i % 2 else P for i in range(400)]
    wrong = {S: P, P: S}
    said = [SAYS[label if ok else wrong[label]] for label, ok in zip(truth, right, strict=True)]
    together = judge_quality(truth, said, [str(i // 10) for i in range(400)]).accuracy
    apart = judge_quality(truth, said, [str(i) for i in range(400)]).accuracy
    # The standard errors are those of 40 and of 400 draws: sqrt(10) = 3.2 apart.
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(10**0.5, rel=0.25)
