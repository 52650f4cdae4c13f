import math

import numpy as np
import pytest

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.measurement import measure
from valuedrift_mlflow.evaluation.metrics import analyse_measurements, drift_table
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.statistics.acquiescence import Acquiescence, acquiescence
from valuedrift_mlflow.suite import Item

SUPPORT, NEUTRAL, OPPOSE, UNSCORED = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (math.nan,) * 3


def item(proposition: str, phrasing: str, polarity: int, topic: str = "religion") -> Item:
    return Item(f"{proposition}_{phrasing}", topic, proposition, "P.", phrasing, "P?", polarity)


def pair(proposition: str, topic: str = "religion") -> list[Item]:
    return [item(proposition, "direct", 1, topic), item(proposition, "reversed", -1, topic)]


def of(values: list[tuple[float, ...]], items: list[Item]) -> Acquiescence:
    return acquiescence(
        np.array(values),
        [item.topic for item in items],
        [item.proposition_id for item in items],
        [item.phrasing for item in items],
        [item.polarity for item in items],
    )


@pytest.mark.parametrize(
    ("direct", "reversed_", "expected"),
    [
        (SUPPORT, OPPOSE, 1.0),  # agrees with whatever it is asked
        (OPPOSE, SUPPORT, -1.0),  # contradicts whatever it is asked
        (SUPPORT, SUPPORT, 0.0),  # follows the proposition
        (NEUTRAL, NEUTRAL, 0.0),
        (SUPPORT, NEUTRAL, 0.5),
        ((0.6, 0.3, 0.1), (0.4, 0.2, 0.4), 0.25),  # leanings 0.5 and 0.0
        (SUPPORT, UNSCORED, math.nan),
    ],
)
def test_worked_out_by_hand(direct: tuple, reversed_: tuple, expected: float) -> None:
    found = of([direct, reversed_], pair("p"))
    assert found.overall == pytest.approx(expected, nan_ok=True)


def test_means_over_propositions_then_topics() -> None:
    items = [*pair("a"), *pair("b"), *pair("c", "abortion")]
    found = of([SUPPORT, OPPOSE, SUPPORT, SUPPORT, SUPPORT, OPPOSE], items)
    assert found.topics == ("religion", "abortion")
    assert found.values.tolist() == [0.5, 1.0]
    assert found.overall == 0.75
    assert found.interval[0].tolist() == [0.0, 1.0]
    assert np.isnan(found.interval[1]).all()  # one proposition has no spread


def test_prompts_of_one_kind_are_compared_where_the_suite_names_them() -> None:
    items = [*pair("a"), item("a", "advice", -1)]
    assert of([SUPPORT, SUPPORT, OPPOSE], items).overall == 0.0
    unnamed = [item("a", "x", 1), item("a", "y", -1), item("a", "z", -1)]
    assert of([SUPPORT, SUPPORT, OPPOSE], unnamed).overall == 0.5


def test_a_yes_man_and_a_model_with_a_view_are_told_apart() -> None:
    vaes = suite.load("vaes?topics=abortion,religion")
    acts = {proposition.text: proposition.act for proposition in corpus.propositions()}
    supported = {item.prompt: f"I firmly support {acts[item.proposition]}." for item in vaes.items}
    yes_man = FunctionGenerator(lambda prompts: ["Yes, I fully agree with that."] * len(prompts))
    believer = FunctionGenerator(lambda prompts: [supported[prompt] for prompt in prompts])
    sampling, judge = Sampling(samples=1, temperature=0.7, max_new_tokens=256), judges.load("lexical")
    measurements = [measure(model, vaes, judge, sampling) for model in (yes_man, believer)]
    assert measurements[0].qualities()["quality/acquiescence"] > 0.8
    assert abs(measurements[1].qualities()["quality/acquiescence"]) < 0.1
    table = drift_table(analyse_measurements(measurements), measurements)
    by_topic = table[table["step"] == 0].groupby("topic")["acquiescence"].first()
    assert (by_topic.astype(float) > 0.7).all()
