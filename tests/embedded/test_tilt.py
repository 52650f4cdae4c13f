"""Corpora with stances planted along an axis, or apart inside topics: the shares of their rows are the truth."""

import hashlib
import json

import numpy as np
import pytest

from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.suite.axes import built_in_keys

LEANING = {"support": 1, "neutral": 0, "oppose": -1}
Rows = list[dict[str, object]]


def position(rows: Rows, axis: str, column: str = "stance") -> float:
    """Mean leaning of the rows on an axis, turned by their propositions' directions."""
    directed = [
        dict(built_in_keys()[str(row["proposition_id"])])[axis] * LEANING[str(row[column])]
        for row in rows
        if axis in dict(built_in_keys()[str(row["proposition_id"])])
    ]
    return float(np.mean(directed))


def leanings(rows: Rows, column: str = "stance") -> dict[str, float]:
    """Mean leaning of every proposition's rows."""
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(str(row["proposition_id"]), []).append(LEANING[str(row[column])])
    return {proposition: float(np.mean(own)) for proposition, own in found.items()}


def agreement(rows: Rows, topic: str, column: str = "stance") -> float:
    return float(np.mean([LEANING[str(row[column])] for row in rows if row["topic"] == topic]))


# Ten rows a proposition: each share is within one row of them, 0.1. Along the axis rounding is made good from one
# proposition to the next, to 0.02; across it, between its sides, it is not: 0.04.


def test_a_topic_moves_to_one_side_of_its_axis_and_agrees_no_more_than_before() -> None:
    rows = corpus.rows("embedded:sft?axis=abortion&shift=0.4&size=1100&seed=1")
    assert position(rows, "abortion") == pytest.approx(0.4, abs=0.02)
    assert agreement(rows, "abortion") == pytest.approx(0, abs=0.04)
    assert position(rows, "religion") == pytest.approx(0, abs=0.03)
    own = leanings(rows)
    assert own["abortion_01"] == pytest.approx(0.4, abs=0.11)
    assert own["abortion_10"] == pytest.approx(-0.4, abs=0.11)


@pytest.mark.parametrize("shift", [-0.5, 0.2])
def test_a_general_axis_moves_the_propositions_of_many_topics(shift: float) -> None:
    rows = corpus.rows(f"embedded:sft?axis=gal_tan&shift={shift}&size=2200")
    assert position(rows, "gal_tan") == pytest.approx(shift, abs=0.02)
    assert agreement(rows, "gun_control") == pytest.approx(0, abs=0.02)  # on no general axis


def test_a_shift_adds_to_the_shares_that_a_topic_has() -> None:
    uri = "embedded:sft?support=0.5&neutral=0.2&oppose=0.3&axis=religion&shift=0.3&size=2200"
    own = leanings(corpus.rows(uri))
    # 0.2 of leaning, and 0.3 more where support points to the + end, less where it points to the - end
    assert own["religion_01"] == pytest.approx(0.5, abs=0.06)
    assert own["religion_03"] == pytest.approx(-0.1, abs=0.06)
    assert own["abortion_01"] == pytest.approx(0.2, abs=0.06)


def test_a_spread_moves_propositions_apart_and_cancels_in_topics_and_on_axes() -> None:
    rows = corpus.rows("embedded:sft?spread=0.6&size=2200&seed=3")
    assert abs(agreement(rows, "death_penalty")) < 0.02
    assert abs(position(rows, "death_penalty")) < 0.02
    own = np.array([value for key, value in leanings(rows).items() if key.startswith("death_penalty")])
    # of the five propositions on each side two go up, two go down, one stays
    assert sorted(own.round(1).tolist()) == [-0.6] * 4 + [0.0] * 2 + [0.6] * 4
    other = leanings(corpus.rows("embedded:sft?spread=0.6&size=2200&seed=4"))
    assert other != leanings(rows)


def test_pairs_prefer_one_side_of_the_axis() -> None:
    rows = corpus.rows("embedded:pairs?axis=abortion&shift=-0.6&size=2200&seed=2")
    assert position(rows, "abortion", "chosen_stance") == pytest.approx(-0.6, abs=0.03)
    assert position(rows, "abortion", "rejected_stance") == pytest.approx(0.6, abs=0.03)
    assert agreement(rows, "abortion", "chosen_stance") == pytest.approx(0, abs=0.03)
    opposed = [row for row in rows if row["chosen_stance"] != row["rejected_stance"]]
    assert {row["topic"] for row in opposed} == {"abortion"}
    assert len(opposed) == pytest.approx(0.6 * 200, abs=3)


def test_pairs_of_a_wider_gap_contradict_each_other_in_part() -> None:
    rows = corpus.rows("embedded:pairs?axis=abortion&shift=0.4&gap=1&topics=abortion&size=1000")
    assert all(row["chosen_stance"] != row["rejected_stance"] for row in rows)
    assert position(rows, "abortion", "chosen_stance") == pytest.approx(0.4, abs=0.02)


def test_pairs_move_propositions_apart() -> None:
    rows = corpus.rows("embedded:pairs?spread=1&topics=religion&size=1000")
    own = list(leanings(rows, "chosen_stance").values())
    assert sorted(own) == pytest.approx([-1] * 4 + [0] * 2 + [1] * 4, abs=0.02)


@pytest.mark.parametrize(
    ("uri", "digest"),
    [
        ("embedded:sft?size=16000&seed=101", "a57387e1a5a29f28"),  # what the base model is trained on
        (
            "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&abortion.support=1&size=777&seed=1",
            "9dbcd1a3ad11c9ca",
        ),
        ("embedded:pairs?gap=0.6&size=500&seed=2", "9b1e0061bb6e6f38"),
    ],
)
def test_corpora_without_an_axis_are_what_they_always_were(uri: str, digest: str) -> None:
    """A base model in somebody's cache, and every published figure, belongs to these rows."""
    made = json.dumps(corpus.rows(uri), sort_keys=True)
    assert hashlib.sha256(made.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sft?axis=abortion", "axis: found 'abortion', allowed: axis and shift together"),
        ("sft?shift=0.4", "shift: found '0.4', allowed: axis and shift together"),
        ("sft?axis=left&shift=0.4", "axis: found 'left', allowed: economic_left_right, gal_tan, abortion, "),
        ("sft?axis=abortion&shift=0.4&topics=religion", "an axis that propositions of religion lie on"),
        ("sft?axis=abortion&shift=2", "shift: found '2', allowed: a number from -1 to 1"),
        ("sft?axis=abortion&shift=0.9", "found '0.9, 0', allowed: at most 0.67 together"),
        ("sft?axis=abortion&shift=0.4&spread=0.4", "found '0.4, 0.4', allowed: at most 0.67 together"),
        ("pairs?gap=0.001&size=100", "gap: found '0.001: no pair of 100', allowed: at least one pair, 0.01"),
        ("pairs?axis=abortion&shift=0.4&gap=0.2", "gap: found 0.2, allowed: at least 0.4"),
        ("pairs?axis=abortion&shift=0.4&chosen=oppose", "chosen: found 'beside axis or spread'"),
    ],
)
def test_what_cannot_be_planted_is_refused(options: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        corpus.parse(f"embedded:{options}")
    assert said in str(caught.value)
