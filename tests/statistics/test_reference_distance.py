import numpy as np
import pytest

from valuedrift_mlflow.statistics.reference_distance import Target, reference_distance

TOPICS = np.repeat([0, 1], 20)  # two topics of ten propositions of two prompts
UNITS = np.repeat(np.arange(20), 2)
EXACT = np.array([np.inf, np.inf])


def said(*shares: tuple[float, float, float]) -> np.ndarray:
    """(C, 40, 1, 3): at each checkpoint every prompt answers with these shares."""
    return np.stack([np.tile(np.array(own), (40, 1, 1)) for own in shares])


def test_by_hand() -> None:
    """(.6 .2 .2) against (.4 .2 .4) and (.5 .5 0): .2 and .3; then (.4 .2 .4): 0 and .4. Mean .25, then .20."""
    target = Target(np.array([[0.4, 0.2, 0.4], [0.5, 0.5, 0.0]]), EXACT, TOPICS)
    found = reference_distance(said((0.6, 0.2, 0.2), (0.4, 0.2, 0.4)), TOPICS, UNITS, target, "propositions")
    assert found.distance == pytest.approx(np.array([[0.2, 0.3], [0.0, 0.4]]))
    assert found.overall == pytest.approx([0.25, 0.2])
    assert found.change == pytest.approx([0, -0.05])
    assert (found.interval[..., 0] <= found.distance).all() and (found.distance <= found.interval[..., 1]).all()


def test_what_the_reference_does_not_speak_of_is_left_out() -> None:
    """One topic, and of it the first proposition alone: the others stand elsewhere, and change nothing."""
    answers = said((0.6, 0.2, 0.2))
    answers[:, 2:] = (0.0, 0.0, 1.0)
    row = np.full(40, -1)
    row[:2] = 0
    found = reference_distance(answers, TOPICS, UNITS, Target(np.array([[0.5, 0.2, 0.3]]), EXACT[:1], row), "prompts")
    assert found.topics.tolist() == [0]
    assert found.overall == pytest.approx([0.1])


@pytest.mark.parametrize("end", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_a_change_that_all_propositions_share_has_an_interval_with_a_width(end: tuple[float, float, float]) -> None:
    target = Target(np.array([[0.2, 0.3, 0.5]] * 2), EXACT, TOPICS)
    found = reference_distance(said((1.0, 0.0, 0.0), end), TOPICS, UNITS, target, "propositions")
    low, high = found.change_interval[1]
    assert low < found.change[1] < high
    assert 0.01 < high - low < 0.3


def test_few_people_behind_a_reference_widen_its_interval() -> None:
    rng = np.random.default_rng(0)
    answers = np.eye(3)[rng.choice(3, (2, 40, 5), p=[0.6, 0.2, 0.2])]
    stances = np.array([[0.4, 0.2, 0.4], [0.4, 0.2, 0.4]])
    widths = []
    for people in (np.inf, 400.0, 20.0):
        target = Target(stances, np.full(2, people), TOPICS)
        found = reference_distance(answers, TOPICS, UNITS, target, "propositions")
        widths.append(np.diff(found.interval[0, 0])[0])
    assert widths[0] < widths[1] < 0.8 * widths[2]


@pytest.mark.parametrize(("start", "end"), [((0.5, 0.2, 0.3),) * 2, ((0.2, 0.2, 0.6), (0.5, 0.2, 0.3))])
def test_intervals_hold_what_is_planted(start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """40 measurements of 20 propositions that differ (correlation 0.2): a model at the reference, or moved to it."""
    rng = np.random.default_rng(5)
    reference = np.array([0.5, 0.2, 0.3])
    true = [0.5 * np.abs(np.array(own) - reference).sum() for own in (start, end)]
    held = held_change = 0
    for turn in range(40):
        mixes = [np.repeat(rng.dirichlet(4 * np.array(own), 20), 2, axis=0) for own in (start, end)]
        answers = np.stack([np.eye(3)[[rng.choice(3, 5, p=mix) for mix in own]] for own in mixes])
        target = Target(np.tile(reference, (2, 1)), EXACT, TOPICS)
        found = reference_distance(answers, TOPICS, UNITS, target, "propositions", seed=turn)
        low, high = found.overall_interval[1]
        held += low <= true[1] <= high
        held_change += found.change_interval[1, 0] <= true[1] - true[0] <= found.change_interval[1, 1]
    assert held >= 36 and held_change >= 36
