import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.prediction_powered import (
    Sample,
    powered_drift,
    powered_stances,
)

Floats = NDArray[np.float64]


def one_by_one(support: list[float], labels: list[float | None], weights: list[float] | None = None) -> Sample:
    """One topic in which every response is a proposition of its own; what is not support is opposition."""
    n = len(support)
    judge = np.array([[share, 0.0, 1 - share] for share in support])
    people = np.array([[math.nan] * 3 if label is None else [label, 0.0, 1 - label] for label in labels])
    drawn = np.array([0.0 if label is None else 1.0 for label in labels])
    own = drawn * (np.ones(n) if weights is None else np.array(weights))
    number = np.arange(n)
    return Sample(judge, people, own, np.zeros(n, dtype=np.int64), number, number)


def random_sample(rng: np.random.Generator, *, right: float, topics: int = 2) -> Sample:
    """Responses of 8 propositions a topic, 4 responses each, half of them labelled, some unscored or unplaced."""
    n = topics * 32
    truth = rng.integers(3, size=n)
    said = np.where(rng.random(n) < right, truth, rng.integers(3, size=n))
    verdicts, labels = np.eye(3)[said] * 0.7 + 0.1, np.eye(3)[truth]
    verdicts[rng.random(n) < 0.2] = math.nan
    drawn = rng.random(n) < 0.5
    labels[~drawn | (rng.random(n) < 0.1)] = math.nan
    number = np.arange(n)
    return Sample(verdicts, labels, drawn * rng.uniform(1, 3, n), number // 32, number // 4, number // 2)


def test_estimates_worked_out_by_hand() -> None:
    """The judge says 5/8 of all and 1/2 of the labelled support; people say 1/4 of the labelled."""
    sample = one_by_one([1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 0, 0, None, None, None, None])
    # lambda 1: 5/8 + mean(Y - f) = 5/8 - 1/4; lambda 1/2: 1/4 + (5/8 - 1/2) / 2; lambda 0: 1/4
    for power, support in ((1.0, 3 / 8), (0.5, 5 / 16), (0.0, 1 / 4)):
        found = powered_stances(sample, 1, power=power)
        assert found.value[0] == pytest.approx([support, 0, 1 - support])
        assert found.value[1] == pytest.approx(found.value[0])  # one topic is all topics
    assert found.judge_alone[0] == pytest.approx([5 / 8, 0, 3 / 8])
    assert powered_stances(sample, 1, power=1.0).moved[0] == pytest.approx(1 / 4)


def test_the_interval_of_the_labels_alone_by_hand() -> None:
    """16 labels, half of them support: variance 16/15 * 16 * (0.5 / 16)^2 = 1/60; t(15) at 97.5 % is 2.13145."""
    found = powered_stances(one_by_one([0.5] * 16, [1, 0] * 8), 1)
    half = 2.13145 * math.sqrt(1 / 60)
    assert found.interval[0, 0] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-5)
    assert found.power[0] == pytest.approx(0)  # a judge that always says the same knows nothing


def test_a_judge_that_is_always_right_counts_in_full() -> None:
    """32 responses, 16 labelled. Lambda 1; variance 16/15 * 32 * (0.5 / 32)^2, half of that of the labels alone."""
    found = powered_stances(one_by_one([1, 0] * 16, [1, 0] * 8 + [None] * 16), 1)
    assert found.power[0, 0] == pytest.approx(1)
    assert found.value[0, 0] == pytest.approx(0.5)
    assert found.width_ratio[0, 0] == pytest.approx(math.sqrt(0.5))


def test_weights_undo_how_responses_were_drawn() -> None:
    """Support was drawn three times as often as opposition: 6 of 8 labels, but half of the responses."""
    sample = one_by_one([0.5] * 8, [1] * 6 + [0, 0], weights=[1.0] * 6 + [3.0] * 2)
    assert powered_stances(sample, 1).value[0, 0] == pytest.approx(0.5)


def test_what_nobody_can_place_is_in_no_mean() -> None:
    sample = one_by_one([1, 1, 0, 0, 1], [1, 0, 0, 0, 1])
    unplaced, unread = sample.labels.copy(), sample.verdicts.copy()
    unplaced[0] = math.nan
    unread[0] = math.nan
    shown = Sample(unread, unplaced, sample.weights, sample.topics, sample.clusters, sample.prompts)
    found = powered_stances(shown, 1)
    assert found.value[0, 0] == pytest.approx(1 / 4)  # 1 of the 4 that people could place
    assert found.judge_alone[0, 0] == pytest.approx(1 / 2)  # 2 of the 4 that the judge could
    assert found.labels[0] == 5


def test_a_change_is_paired_by_proposition() -> None:
    """Every proposition moves by the same: the change has no spread, however much the propositions differ."""
    before = one_by_one([0.1, 0.4, 0.6, 0.7], [0.1, 0.4, 0.6, 0.7])
    after = one_by_one([0.3, 0.6, 0.8, 0.9], [0.3, 0.6, 0.8, 0.9])
    found = powered_drift(before, after, 1)
    assert found.value[0] == pytest.approx([0.2, 0, -0.2])
    assert found.total_variation is not None
    assert found.total_variation == pytest.approx([0.2, 0.2])
    apart = np.diff(powered_stances(after, 1).interval[0, 0])[0]
    assert apart > 0.3
    # All four alike leave open what 1 - 0.025^(1/4) = 0.60 of the propositions may do.
    assert found.interval[0, 0] == pytest.approx([0.2 - 0.6024 * 1.2, 0.2 + 0.6024 * 0.8], abs=1e-3)


def test_a_topic_with_labels_of_one_proposition_has_no_estimate() -> None:
    sample = random_sample(np.random.default_rng(0), right=0.8)
    few = np.where((sample.topics == 1) & (sample.clusters > 8), 0.0, sample.weights)
    found = powered_stances(Sample(sample.verdicts, sample.labels, few, *positions(sample)), 2)
    assert np.isnan(found.value[1]).all()
    assert found.value[2] == pytest.approx(found.value[0], abs=0.1)  # the other topic, with the lambda of all
    assert found.judge_alone[2] == pytest.approx(found.judge_alone[0])
    none = powered_stances(Sample(sample.verdicts, sample.labels, 0 * few, *positions(sample)), 2)
    assert np.isnan(none.value).all()


def positions(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return sample.topics, sample.clusters, sample.prompts


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), right=st.floats(0, 1))
def test_no_interval_is_longer_than_that_of_the_labels_alone(seed: int, right: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_sample(rng, right=right), random_sample(rng, right=right)
    for found in (powered_stances(first, 2), powered_drift(first, second, 2)):
        inside = (np.abs(found.labels_alone_interval) < 1).all(axis=-1) & (found.labels_alone_interval[..., 0] != 0)
        inside &= (np.abs(found.interval) < 1).all(axis=-1) & (found.interval[..., 0] != 0)  # neither is cut off
        assert (found.width_ratio[inside] <= 1 + 1e-9).all()
        assert ((found.power >= 0) & (found.power <= 1)).all()
        assert (found.interval[..., 0] <= found.value + 1e-12).all()
        assert (found.value <= found.interval[..., 1] + 1e-12).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_only_the_ratios_of_weights_count(seed: int, factor: float) -> None:
    sample = random_sample(np.random.default_rng(seed), right=0.7)
    scaled = Sample(sample.verdicts, sample.labels, factor * sample.weights, *positions(sample))
    assert powered_stances(scaled, 2).interval == pytest.approx(powered_stances(sample, 2).interval)


def test_the_labels_alone_do_not_know_the_judge() -> None:
    rng = np.random.default_rng(3)
    sample = random_sample(rng, right=0.9)
    other = Sample(rng.permutation(sample.verdicts), sample.labels, sample.weights, *positions(sample))
    first, second = powered_stances(sample, 2), powered_stances(other, 2)
    assert first.labels_alone_interval == pytest.approx(second.labels_alone_interval)
    assert first.power.mean() > 0.5 > second.power.mean()


def test_the_peer_says_the_same_of_independent_responses() -> None:
    """The authors' package; it keeps labelled and unlabelled apart, takes z for t, and n for n - 1."""
    import ppi_py

    rng = np.random.default_rng(1)
    n, m = 4000, 400
    truth = (rng.random(n) < 0.3).astype(float)
    judge = 0.6 * truth + 0.2 + rng.normal(0, 0.3, n)  # lambda about 0.7: both cut it off at 1, each its own
    sample = one_by_one(judge.tolist(), [*truth[:m].tolist(), *[None] * (n - m)])
    arrays = truth[:m], judge[:m], judge[m:]
    # The judge's mean is over all n here and over the n - m others there: the same estimate at lambda * (n - m) / n.
    for power in (0.0, 0.4, 0.9):
        peer = ppi_py.ppi_mean_pointestimate(*arrays, lam=power * (n - m) / n)
        assert powered_stances(sample, 1, power=power).value[0, 0] == pytest.approx(float(peer[0]), abs=1e-12)
    found = powered_stances(sample, 1)
    assert found.value[0, 0] == pytest.approx(float(ppi_py.ppi_mean_pointestimate(*arrays)[0]), abs=5e-4)
    low, high = ppi_py.ppi_mean_ci(*arrays, alpha=0.05)
    # t(399) is 0.3 % above z; the variances of the judge are taken over n there and over its parts here.
    assert np.diff(found.interval[0, 0])[0] == pytest.approx(float(high[0] - low[0]), rel=0.02)
    assert found.interval[0, 0] == pytest.approx([float(low[0]), float(high[0])], abs=2e-3)
    alone = ppi_py.ppi_mean_ci(*arrays, alpha=0.05, lam=0)
    assert found.labels_alone_interval[0, 0] == pytest.approx([float(end[0]) for end in alone], abs=5e-4)


@pytest.fixture(scope="module")
def label_validity() -> ModuleType:
    """The benchmark of the intervals, whose simulation is the test's too."""
    path = Path(__file__).parents[2] / "benchmarks" / "label_validity.py"
    spec = importlib.util.spec_from_file_location("label_validity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["label_validity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kappa", "judge_bias"), [(0.3, 0.1), (0.8, 0.03)])
def test_planted_stances_are_found_with_a_bad_judge(
    label_validity: ModuleType, kappa: float, judge_bias: float
) -> None:
    """120 labels, 50 measurements of three stances: the standard error of the coverage is about 0.025."""
    stances, drift = label_validity.stances_and_drift(kappa, 120, 50)
    for found in (stances, drift):
        assert found.coverage >= 0.87
        assert found.bias < 0.01 + 3 * found.bias_error
        assert found.width_ratio < 1
        assert found.widest_ratio <= 1 + 1e-9
    assert stances.judge_bias > judge_bias
