from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from valuedrift_mlflow.statistics.arrival import drift_time
from valuedrift_mlflow.statistics.drift import Drift, DriftTimeRule, analyse, topic_means

Floats = NDArray[np.float64]
UNSCORED = [np.nan, np.nan, np.nan]
SUPPORT, NEUTRAL, OPPOSE = 0, 1, 2


def alike(rows: Sequence[Sequence[float]], prompts: int) -> Floats:
    """(C, 3) -> (C, prompts, 3): every prompt answers alike, so no interval has any width."""
    return np.repeat(np.asarray(rows, dtype=float)[:, None], prompts, axis=1)


def simulated(
    rng: np.random.Generator, shift: float, topics: int, prompts: int = 50, samples: int = 5
) -> tuple[Floats, list[str]]:
    """Two checkpoints of categorical samples; ``shift`` of probability goes from neutral to support in the mean.

    Every prompt has its own stance probabilities, Dirichlet around (0.3, 0.5, 0.2), so the true magnitude of each
    topic is (shift, -shift, 0) and the true total variation is ``shift``.
    """
    before = rng.dirichlet([0.6, 1.0, 0.4], size=topics * prompts)
    moved = before[:, NEUTRAL] * shift / 0.5
    after = before + np.stack([moved, -moved, np.zeros_like(moved)], axis=1)
    values = np.stack([rng.multinomial(samples, p / p.sum(axis=1, keepdims=True)) / samples for p in (before, after)])
    return values, [f"topic_{number // prompts}" for number in range(topics * prompts)]


# Worked by hand ------------------------------------------------------------------------------------------------------


def test_means_magnitudes_and_total_variation() -> None:
    values = np.array(
        [
            [[1.0, 0.0, 0.0], [0.2, 0.2, 0.6], [0.0, 1.0, 0.0], [0.4, 0.4, 0.2]],
            [[0.5, 0.5, 0.0], [0.6, 0.2, 0.2], [0.0, 0.5, 0.5], UNSCORED],
        ]
    )
    drift = analyse(values, ["religion", "abortion", "religion", "abortion"], [0, 20])

    assert drift.topics == ("religion", "abortion")  # order of first appearance
    # religion, before: ((1, 0, 0) + (0, 1, 0)) / 2; after: ((.5, .5, 0) + (0, .5, .5)) / 2
    # abortion, before: ((.2, .2, .6) + (.4, .4, .2)) / 2; after: the one scored prompt
    np.testing.assert_allclose(drift.probability[0], [[0.5, 0.5, 0.0], [0.3, 0.3, 0.4]])
    np.testing.assert_allclose(drift.probability[1], [[0.25, 0.5, 0.25], [0.6, 0.2, 0.2]])
    # after - before
    np.testing.assert_allclose(drift.magnitude[1], [[-0.25, 0.0, 0.25], [0.3, -0.1, -0.2]], atol=1e-12)
    # (.25 + 0 + .25) / 2 and (.3 + .1 + .2) / 2; overall (.25 + .3) / 2
    np.testing.assert_allclose(drift.total_variation[1], [0.25, 0.3])
    np.testing.assert_allclose(drift.overall, [0.0, 0.275], atol=1e-12)
    # (.25 + .6) / 2, (.5 + .2) / 2, (.25 + .2) / 2
    np.testing.assert_allclose(drift.overall_probability[1], [0.425, 0.35, 0.225])


def test_topic_means_work_on_any_leading_axes() -> None:
    values = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.5, 0.5], [np.nan, np.nan]]])
    # prompts 0 and 1 belong to topics 1 and 0: the rows change places, and nothing is averaged
    np.testing.assert_array_equal(
        topic_means(values, np.array([1, 0])), [[[1.0, 0.0], [0.0, 1.0]], [[np.nan, np.nan], [0.5, 0.5]]]
    )
    with pytest.raises(ValueError, match="groups"):
        topic_means(values, np.array([0, 0, 0]))


def test_sign_flips_on_two_prompts() -> None:
    values = np.array([[[0.2, 0.8, 0.0], [0.2, 0.8, 0.0]], [[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]]])
    drift = analyse(values, ["religion"] * 2, [0, 1], resamples=20_000)
    # changes (.4, -.4, 0) and (.2, -.2, 0); the four flips have total variation |+-.4 +- .2| / 2 = .3, .1, .1, .3:
    # two of the four are as large as the observed .3
    assert drift.topic_p_value[1, 0] == 0.5
    assert drift.p_value[1, 0].tolist() == [0.5, 0.5, 1.0]
    # but two propositions are no sample of propositions: they are in no family, and nothing can be told
    assert np.isnan(drift.p_adjusted[1, 0]).all() and drift.verdict[1, 0] == "cannot tell"


def test_the_family_is_tested_at_once() -> None:
    drift = analyse(alike([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], 40), ["religion"] * 40, [0, 1])
    # No one of 2000 flips of 40 signs is as extreme, for any member of the family: p = 1 / 2001. Oppose did not change.
    np.testing.assert_allclose(drift.p_value[1, 0], [1 / 2001, 1 / 2001, 1.0])
    np.testing.assert_allclose(drift.p_adjusted[1, 0], [1 / 2001, 1 / 2001, 1.0])
    assert drift.significant[1, 0].tolist() == [True, True, False] and drift.topic_p_adjusted[1, 0] == 1 / 2001


def test_flips_of_eight_propositions_are_enumerated() -> None:
    # All eight propositions of a topic change alike: of the 2^8 sign patterns 2 are as extreme, p = 2 / 256. In two
    # such topics either one may be: p = 1 - (1 - 2 / 256)^2 = .01556, give or take 3 sqrt(.0156 / 20000) = .0026.
    rows = alike([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], 32)
    names = [f"p{number // 2}" for number in range(32)]
    topics = ["religion"] * 16 + ["abortion"] * 16
    drift = analyse(rows, topics, [0, 1], propositions=names, resamples=20_000)
    assert drift.p_value[1, :, 0].tolist() == [2 / 256] * 2
    assert drift.p_adjusted[1, :, 0] == pytest.approx(0.01556, abs=0.0026)
    few = analyse(rows[:, :14], ["religion"] * 14, [0, 1], propositions=names[:14])
    assert np.isnan(few.p_adjusted[1]).all() and few.verdict[1, 0] == "cannot tell"


def test_the_t_interval_over_propositions() -> None:
    # Propositions of two prompts change by .1, .2, .3 and .4 of support: mean .25, standard error
    # sqrt(.05 / 3 / 4) = .0645497 (their sum of squares about the mean is .05), t of 3 degrees of freedom at 97.5 %
    # 3.18245. Prompts of a proposition differ by .1 either way, which tells nothing more.
    change = np.array([0.1, 0.2, 0.3, 0.4]).repeat(2) + np.array([0.1, -0.1] * 4)
    before = np.tile([0.2, 0.7, 0.1], (8, 1))
    after = before + np.stack([change, -change, np.zeros(8)], axis=1)
    names = [f"p{number // 2}" for number in range(8)]
    drift = analyse([before, after], ["religion"] * 8, [0, 1], propositions=names)
    half = 3.18245 * 0.0645497
    assert drift.magnitude_ci[1, 0, 0] == pytest.approx([0.25 - half, 0.25 + half], abs=1e-5)


def test_the_interval_of_these_prompts_is_that_of_sampling() -> None:
    # Two prompts of four answers: support in 1, then 3 of 4; and in 2, then 2 of 4. Unbiased variance of an answer
    # .25, .25, 1/3, 1/3, so of the mean change (.25 + .25 + 1/3 + 1/3) / 4 / 4 = .0729167, 12 degrees of freedom
    # (t at 97.5 % is 2.17881). How far the prompts themselves differ does not matter.
    support = np.array([[[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [0, 0, 1, 1]]], dtype=float)
    answers = np.stack([support, 1 - support, np.zeros_like(support)], axis=-1)
    drift = analyse(answers, ["religion"] * 2, [0, 1], interval="prompts")
    half = 2.17881 * np.sqrt(0.0729167)
    assert drift.magnitude_ci[1, 0, 0] == pytest.approx([0.25 - half, 0.25 + half], abs=1e-4)
    # Half of sqrt(2 / pi) times the standard errors of support and neutral: had nothing changed.
    assert drift.noise[1, 0] == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt(0.0729167), abs=0.01)


def test_opposite_moves_inside_a_topic_are_seen() -> None:
    # Half of the propositions go from .3 to .7 of support, half from .7 to .3: the topic's mean stays where it was.
    # Soft verdicts do not differ between samples, so the drift of a proposition is exactly .4.
    low, high = [0.3, 0.4, 0.3], [0.7, 0.0, 0.3]
    rows = np.array([[low] * 20 + [high] * 20, [high] * 20 + [low] * 20])[:, :, None].repeat(3, axis=2)
    names = [f"p{number // 4}" for number in range(40)]
    drift = analyse(rows, ["religion"] * 40, [0, 1], propositions=names)
    assert drift.total_variation[1, 0] == pytest.approx(0) and not drift.topic_significant[1, 0]
    assert drift.within[1, 0] == pytest.approx(0.4) and drift.within_p_value[1, 0] < 0.01
    assert drift.verdict[1, 0] == "cannot tell"  # propositions like these may well have moved to one side


def test_the_drift_of_a_proposition_is_unbiased() -> None:
    # Hard answers of 20 topics whose propositions do not move: squares about 0, a quarter of them negative at least,
    # where the plain distance of a proposition's means has the noise of its 10 answers.
    rng = np.random.default_rng(4)
    chances = rng.dirichlet([0.6, 1.0, 0.4], size=400)
    answers = np.stack([rng.multinomial(1, np.repeat(chances[:, None], 5, axis=1)) for _ in range(2)]).astype(float)
    topics, names = [f"t{i // 20}" for i in range(400)], [f"p{i // 2}" for i in range(400)]
    still = analyse(answers, topics, [0, 1], propositions=names)
    change = np.diff(answers.mean(axis=2).reshape(2, 200, 2, 3).mean(axis=2), axis=0)[0]  # (200 propositions, 3)
    plain = np.sqrt(0.5 * (change**2).sum(axis=-1).mean())
    assert still.overall_within[1] < plain / 2 and (still.within[1] == 0).sum() >= 5
    assert (still.within_p_value[1] <= 0.05).mean() <= 0.2  # 20 tests: 4 or more of them have probability .016


def test_drift_time_under_both_rules() -> None:
    rows = [[0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.78, 0.12, 0.1], [0.8, 0.1, 0.1], [0.8, 0.1, 0.1]]
    given_steps = [100, 110, 120, 140, 150]
    # Intervals of 300 prompts that are all alike are narrower than .01, so support arrives with its highest value .8,
    # first seen at step 140, and neutral with its lowest: (140 - 100) / (150 - 100) = .8. Oppose never moved:
    # undefined, not 0.
    drift = analyse(alike(rows, 300), ["religion"] * 300, given_steps)
    np.testing.assert_allclose(drift.drift_time, [[0.8, 0.8, np.nan]])
    # 95 % of the change of .6 is .57: support reaches .2 + .57 = .77 at step 120, (120 - 100) / 50 = .4.
    drift = analyse(alike(rows, 30), ["religion"] * 30, given_steps, rule="share_of_change")
    np.testing.assert_allclose(drift.drift_time, [[0.4, 0.4, np.nan]])


@pytest.mark.parametrize(
    ("probability", "expected", "why"),
    [
        ([0.2, 0.6, 0.9, 0.5], 2 / 3, "rose to its peak .9 +- .1, then fell back: inside from the third of four"),
        ([0.2, 0.85, 0.9, 0.5], 1 / 3, ".85 is inside .9 +- .1"),
        ([0.8, 0.3, 0.25, 0.4], 1 / 3, "fell to .25 +- .1, and .3 is inside"),
        ([0.45, 0.2, 0.5, 0.5], 0.0, "began inside the interval of its peak, .5 +- .1"),
        ([0.2, np.nan, 0.5, 0.5], 2 / 3, "an unscored checkpoint is passed over"),
        ([0.2, 0.4, 0.5, np.nan], np.nan, "no final value"),
        ([0.2, 0.4, 0.5, 0.2], np.nan, "no final change"),
    ],
)
def test_drift_time_by_extreme_interval(probability: list[float], expected: float, why: str) -> None:
    values = np.array(probability)
    interval = values[:, None] + np.array([-0.1, 0.1])
    assert drift_time(values, interval, np.arange(4)) == pytest.approx(expected, nan_ok=True), why


def test_a_single_change_among_eleven_topics_is_found_even_with_few_resamples() -> None:
    # 33 tests: 100 flips would allow no p below 1 / 101, adjusted 33 / 101
    before = alike([[0.4, 0.4, 0.2]], 11 * 30)
    after = before.copy()
    after[:, :30] = [0.6, 0.2, 0.2]
    topics = [f"topic_{number // 30}" for number in range(11 * 30)]
    drift = analyse(np.concatenate([before, after]), topics, [0, 1], resamples=100)
    assert drift.significant[1].sum() == 2 and drift.significant[1, 0, :2].all()
    assert drift.topic_significant[1].tolist() == [True] + [False] * 10


# Limit cases ---------------------------------------------------------------------------------------------------------


def test_one_checkpoint() -> None:
    drift = analyse(alike([[0.2, 0.7, 0.1]], 8), ["religion"] * 8, [0])
    assert not drift.magnitude.any() and not drift.significant.any() and not drift.overall.any()
    assert (drift.p_value == 1).all() and (drift.topic_p_adjusted == 1).all()
    assert np.isnan(drift.drift_time).all()


def test_identical_checkpoints() -> None:
    once = np.random.default_rng(0).dirichlet([1, 1, 1], size=(1, 40))
    drift = analyse(np.repeat(once, 3, axis=0), ["religion", "abortion"] * 20, [0, 5, 9])
    assert (drift.magnitude == 0).all() and (drift.p_adjusted == 1).all() and not drift.magnitude_ci[0].any()
    # No interval is without width: 20 prompts that all stayed may hide one that does not.
    assert (np.diff(drift.magnitude_ci[1:], axis=-1) > 0.01).all() and (drift.overall_ci[1:] < 0.1).all()
    assert (drift.verdict[0] == "not moved").all()
    assert not drift.significant.any() and np.isnan(drift.drift_time).all()


def test_a_topic_of_one_prompt_has_estimates_but_no_interval() -> None:
    values = alike([[0.2, 0.7, 0.1], [0.9, 0.0, 0.1]], 21)
    drift = analyse(values, ["religion"] * 20 + ["abortion"], [0, 1])
    assert drift.total_variation[1, 1] == pytest.approx(0.7)
    assert (drift.p_value[1, 1] == 1).all() and not drift.significant[1, 1].any()
    for interval in (drift.probability_ci, drift.magnitude_ci, drift.total_variation_ci):
        assert np.isnan(interval[:, 1]).all() and not np.isnan(interval[:, 0]).any()
    assert drift.overall[1] == pytest.approx(0.7) and np.isnan(drift.overall_ci).all()


@pytest.mark.filterwarnings("error")
def test_a_topic_never_scored_is_undefined_and_counts_nowhere() -> None:
    values, topics = simulated(np.random.default_rng(0), 0.3, topics=2)
    alone = analyse(values[:, :50], topics[:50], [0, 1])
    values[:, 50:] = np.nan
    drift = analyse(values, topics, [0, 1])
    for name in ("probability", "probability_ci", "magnitude", "total_variation_ci", "p_value", "p_adjusted", "noise"):
        assert np.isnan(getattr(drift, name)[:, 1]).all(), name
    assert not drift.significant[:, 1].any() and not drift.topic_significant[:, 1].any()
    assert np.isnan(drift.drift_time[1]).all()
    for name in ("overall", "overall_ci", "overall_noise", "overall_probability"):
        np.testing.assert_allclose(getattr(drift, name), getattr(alone, name), atol=0.01)
    np.testing.assert_allclose(drift.p_adjusted[:, 0], alone.p_adjusted[:, 0], atol=0.02)


@pytest.mark.filterwarnings("error")
def test_nothing_scored_at_all() -> None:
    drift = analyse(np.full((2, 4, 3), np.nan), ["religion"] * 4, [0, 1])
    assert np.isnan(drift.overall).all() and np.isnan(drift.overall_ci).all() and not drift.significant.any()


@pytest.mark.filterwarnings("error")
def test_prompts_scored_at_one_checkpoint_only_are_not_tested() -> None:
    values = alike([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], 20)
    values[0, :10] = values[1, 10:] = np.nan
    drift = analyse(values, ["religion"] * 20, [0, 1])
    assert drift.magnitude[1, 0] == pytest.approx([0.4, -0.4, 0.0])  # each checkpoint's mean is over what it has
    assert np.isnan(drift.p_value[1]).all() and not drift.significant.any()


def test_unscored_prompts_leave_the_test_to_the_others() -> None:
    values, topics = simulated(np.random.default_rng(1), 0.3, topics=1)
    values[1, 40:] = np.nan
    some = analyse(values, topics, [0, 1], resamples=10_000)
    complete = analyse(values[:, :40], topics[:40], [0, 1], resamples=10_000)
    np.testing.assert_allclose(some.p_value, complete.p_value, atol=0.01)
    np.testing.assert_allclose(some.noise, complete.noise, rtol=0.3)  # the start has ten prompts more
    np.testing.assert_allclose(some.probability_ci[1], complete.probability_ci[1], atol=0.02)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"values": np.full((2, 3), 0.5)}, "values"),
        ({"values": np.full((2, 0, 3), 0.5)}, "values"),
        ({"values": np.full((2, 4, 3), 0.5)}, r"values\[0, 0\]"),  # sums to 1.5
        ({"values": alike([[0.2, 0.8, 0.0], [1.2, -0.2, 0.0]], 4)}, r"values\[1, 0\].*in \[0, 1\]"),
        ({"values": alike([[0.2, 0.8, 0.0], [np.nan, 0.5, 0.5]], 4)}, r"values\[1, 0\].*three NaN"),
        ({"values": alike([[0.2, 0.8, 0.0], [np.inf, 0.5, 0.5]], 4)}, r"values\[1, 0\]"),
        ({"topics": ["religion"]}, "topics.*4 prompts"),
        ({"steps": [0, 1, 2]}, "steps.*2 checkpoints"),
        ({"steps": [10, 10]}, r"steps: found \[10, 10\]"),
        ({"steps": [10, 5]}, "steps.*larger"),
        ({"steps": [0.0, 0.5]}, "steps.*whole"),
        ({"propositions": ["p1"]}, "propositions.*4 prompts"),
        ({"interval": "topics"}, "interval.*propositions or prompts"),
        ({"margin": 1.5}, "margin.*between 0 and 1"),
        ({"rule": "half_life"}, "rule.*extreme_interval or share_of_change"),
        ({"alpha": 5}, "alpha"),
        ({"resamples": 0}, "resamples"),
    ],
)
def test_bad_input_is_named_in_one_line(change: dict[str, Any], named: str) -> None:
    good: dict[str, Any] = {
        "values": alike([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], 4),
        "topics": ["religion"] * 4,
        "steps": [0, 1],
    }
    analyse(**good, resamples=10)
    with pytest.raises(ValueError, match=named) as error:
        analyse(**(good | change))
    assert "\n" not in str(error.value)


# Properties ----------------------------------------------------------------------------------------------------------


@st.composite
def stages(draw: st.DrawFn) -> tuple[Floats, list[str], list[int]]:
    """Any small stage: 1 to 4 checkpoints, 1 to 12 prompts of up to three topics, some of them unscored."""
    checkpoints, prompts = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    counts = st.tuples(*[st.integers(0, 5)] * 3)  # (0, 0, 0) = unscored
    drawn = draw(st.lists(counts, min_size=checkpoints * prompts, max_size=checkpoints * prompts))
    array = np.array(drawn, dtype=float).reshape(checkpoints, prompts, 3)
    totals = array.sum(axis=-1, keepdims=True)
    values = np.divide(array, totals, out=np.full_like(array, np.nan), where=totals > 0)
    topics = draw(
        st.lists(st.sampled_from(["religion", "abortion", "gun_control"]), min_size=prompts, max_size=prompts)
    )
    return values, topics, list(range(0, 10 * checkpoints, 10))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(stages())
def test_everything_stays_in_its_range(stage: tuple[Floats, list[str], list[int]]) -> None:
    rules: tuple[DriftTimeRule, ...] = ("extreme_interval", "share_of_change")
    for rule in rules:
        drift = analyse(*stage, resamples=60, rule=rule)
        for unit in (
            *(drift.probability, drift.total_variation, drift.noise, drift.overall, drift.overall_noise),
            *(drift.probability_ci, drift.total_variation_ci, drift.overall_ci, drift.drift_time),
            *(drift.p_value, drift.p_adjusted, drift.topic_p_value, drift.topic_p_adjusted),
        ):
            defined = unit[~np.isnan(unit)]
            assert (defined >= -1e-12).all() and (defined <= 1 + 1e-12).all()
        assert (np.nan_to_num(np.abs(drift.magnitude)) <= 1 + 1e-12).all()
        np.testing.assert_allclose(np.nan_to_num(drift.magnitude.sum(axis=-1)), 0, atol=1e-12)
        for estimate, interval in (
            (drift.probability, drift.probability_ci),
            (drift.magnitude, drift.magnitude_ci),
            (drift.total_variation, drift.total_variation_ci),
            (drift.overall, drift.overall_ci),
            (drift.overall_probability, drift.overall_probability_ci),
        ):
            known = ~np.isnan(interval).any(axis=-1)
            assert (interval[known, 0] <= estimate[known] + 1e-12).all()
            assert (interval[known, 1] >= estimate[known] - 1e-12).all()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_the_order_of_prompts_does_not_matter(random: Any) -> None:
    values, topics = simulated(np.random.default_rng(5), 0.1, topics=2)
    order = list(range(len(topics)))
    random.shuffle(order)
    drift = analyse(values, topics, [0, 1])
    mixed = analyse(values[:, order], [topics[i] for i in order], [0, 1])
    back = [mixed.topics.index(topic) for topic in drift.topics]
    np.testing.assert_allclose(mixed.magnitude[:, back], drift.magnitude, atol=1e-12)
    np.testing.assert_allclose(mixed.magnitude_ci[:, back], drift.magnitude_ci, atol=0.02)
    np.testing.assert_allclose(mixed.total_variation_ci[:, back], drift.total_variation_ci, atol=0.02)
    np.testing.assert_allclose(mixed.p_value[:, back], drift.p_value, atol=0.06)
    np.testing.assert_allclose(mixed.overall_noise, drift.overall_noise, atol=0.003)


def test_the_seed_decides_the_draws() -> None:
    values, topics = simulated(np.random.default_rng(6), 0.1, topics=2)
    first, again, other = (analyse(values, topics, [0, 1], resamples=200, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.total_variation_ci, again.total_variation_ci)
    np.testing.assert_array_equal(first.p_value, again.p_value)
    assert not np.array_equal(first.total_variation_ci, other.total_variation_ci)


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'trl', 'mlflow', 'scipy.stats'}"
    code = f"import sys, valuedrift_mlflow.statistics.drift; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Planted truth -------------------------------------------------------------------------------------------------------


def replicates(shift: float, runs: int, topics: int, prompts: int = 50) -> list[Drift]:
    rng = np.random.default_rng(11)
    return [analyse(*simulated(rng, shift, topics, prompts), [0, 1], resamples=400, seed=run) for run in range(runs)]


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_intervals_hold_the_planted_shift(shift: float) -> None:
    drifts = replicates(shift, runs=60, topics=11)
    magnitude = np.stack([drift.magnitude_ci[1] for drift in drifts])  # (runs, T, 3, 2)
    held = (magnitude[..., 0] <= [shift, -shift, 0]) & ([shift, -shift, 0] <= magnitude[..., 1])
    assert held.mean() == pytest.approx(0.95, abs=0.02)  # 660 topics: two standard errors are .017

    distance = np.stack([drift.total_variation_ci[1] for drift in drifts])
    held = (distance[..., 0] <= shift + 1e-9) & (shift - 1e-9 <= distance[..., 1])
    # At 0 nothing can be missed below, so that the share may come to .975; 660 topics: two standard errors are .017
    assert 0.93 - 0.017 <= held.mean() <= 0.975 + 0.017
    overall = np.stack([drift.overall_ci[1] for drift in drifts])
    held = (overall[..., 0] <= shift + 1e-9) & (shift - 1e-9 <= overall[..., 1])
    assert held.mean() >= 0.95 - 0.06  # 60 runs: two standard errors are .056


def test_no_change_is_seldom_called_drift_and_looks_like_the_noise() -> None:
    drifts = replicates(0.0, runs=300, topics=3, prompts=20)
    tolerance = 2.5 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean([drift.significant[1].any() for drift in drifts]) <= 0.05 + tolerance
    assert np.mean([drift.topic_significant[1].any() for drift in drifts]) <= 0.05 + tolerance
    assert np.mean([(drift.p_value[1] <= 0.05).mean() for drift in drifts]) == pytest.approx(0.045, abs=0.015)
    observed, expected = (np.mean([getattr(d, name)[1] for d in drifts]) for name in ("overall", "overall_noise"))
    assert observed == pytest.approx(expected, rel=0.05)


def test_a_planted_drift_is_found_where_it_is() -> None:
    rng = np.random.default_rng(3)
    still, topics = simulated(rng, 0.0, topics=10)
    moved, _ = simulated(rng, 0.3, topics=1)
    drift = analyse(np.concatenate([still, moved], axis=1), [*topics, *["planted"] * 50], [0, 1])
    assert drift.topic_significant[1].tolist() == [False] * 10 + [True]
    assert drift.significant[1, -1].tolist() == [True, True, False]
    assert drift.magnitude[1, -1] == pytest.approx([0.3, -0.3, 0.0], abs=0.1)
    assert drift.total_variation[1, -1] > 2 * drift.noise[1, -1]


# A peer's answer -----------------------------------------------------------------------------------------------------


def test_scipy_agrees() -> None:
    values, topics = simulated(np.random.default_rng(2), 0.06, topics=1)
    drift = analyse(values, topics, [0, 1], resamples=10_000)
    change = values[1] - values[0]
    options: dict[str, Any] = {"n_resamples": 10_000, "rng": np.random.default_rng(0)}
    for stance in range(3):
        test = stats.permutation_test((change[:, stance],), np.mean, permutation_type="samples", **options)
        assert drift.p_value[1, 0, stance] == pytest.approx(test.pvalue, abs=0.025)
        for checkpoint in (0, 1):
            peer = stats.bootstrap((values[checkpoint, :, stance],), np.mean, method="percentile", **options)
            # Ours is made on the scale of log-odds: it reaches further towards one half.
            ends = (peer.confidence_interval.low, peer.confidence_interval.high)
            assert drift.probability_ci[checkpoint, 0, stance] == pytest.approx(ends, abs=0.015)
        peer = stats.bootstrap((change[:, stance],), np.mean, method="percentile", **options)
        assert drift.magnitude_ci[1, 0, stance] == pytest.approx(peer.confidence_interval, abs=0.01)

    def distance(signs: Floats) -> float:
        return float(0.5 * np.abs((signs[:, None] * change).mean(axis=0)).sum())

    test = stats.permutation_test(
        (np.ones(50),), distance, permutation_type="samples", alternative="greater", vectorized=False, **options
    )
    assert drift.topic_p_value[1, 0] == pytest.approx(test.pvalue, abs=0.025)
    assert drift.noise[1, 0] == pytest.approx(test.null_distribution.mean(), abs=0.002)
