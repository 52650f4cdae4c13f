"""What a report says of every topic of a stage, from answers that are known."""

import numpy as np
import pytest

from valuedrift_mlflow.evaluation.topic_table import Topics
from valuedrift_mlflow.statistics.drift import analyse

SUPPORT, NEUTRAL, OPPOSE = np.eye(3)


def said(*agreeing: float) -> np.ndarray:
    """(C, 20, 10, 3): at each checkpoint this share of the ten answers to each of 20 prompts supports, none opposes."""
    rows = [[SUPPORT if sample < 10 * share else NEUTRAL for sample in range(10)] for share in agreeing]
    return np.array(rows)[:, None].repeat(20, axis=1)


@pytest.fixture(scope="module")
def cells() -> dict[str, dict[str, str]]:
    """A topic that goes to .8 by way of .9, and one that stays, by the names of topics and columns."""
    answers = np.concatenate([said(0.2, 0.5, 0.9, 0.8), said(0.2, 0.2, 0.2, 0.2)], axis=1)
    drift = analyse(answers, ["religion"] * 20 + ["abortion"] * 20, [0, 10, 20, 30])
    table = Topics(drift).sure
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.cells}


def test_a_starred_topic_says_when_it_moved_and_what_is_left_of_it_given_the_star(
    cells: dict[str, dict[str, str]],
) -> None:
    religion = cells["religion"]
    assert religion["verdict"] == "moved"
    # Half of the change of .6 is there at .5, the first of three checkpoints. The fit that never falls joins it to .85
    # at the second, so .74 comes at (.74 - .5) / .35 = .69 of the way: at .33 + .69 / 3 = .56.
    assert religion["50 % and 90 % of it after (of the stage)"].startswith("0.33 [0.00, 0.33], 0.56 [")
    assert religion["beyond its end by"].startswith("0.1")
    assert religion["given its star [95 % interval]"].startswith("0.6")


def test_of_a_topic_without_a_star_none_of_it_is_said(cells: dict[str, dict[str, str]]) -> None:
    still = cells["abortion"]
    names = ("given its star [95 % interval]", "50 % and 90 % of it after (of the stage)", "beyond its end by")
    assert [still[name] for name in names] == ["", "", ""]
