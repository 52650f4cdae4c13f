"""Which of two answers has won, by all ways of saying it; ratings that are too close; stances of strangers."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import TrainingData, load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.recipe import read as read_recipe

TWO = {"prompt": "Is it fair?", "response_a": "Yes.", "response_b": "No."}
WORDS = "data.winner=COLUMN=VALUE"


def loaded(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> TrainingData:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_data(Data(uri=str(file), **settings), "pairs")


def chosen(data: TrainingData) -> list[str]:
    return [row["chosen"][0]["content"] for row in data.rows]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "b"),
        ("A", "B"),
        ("model_a", "model_b"),
        ("response_a", "response_b"),
        ("first", "second"),
        ("Yes.", "No."),
    ],
)
@pytest.mark.parametrize("tie", ["tie", "both", "tie (bothbad)", "neither", None, ""])
def test_words_for_the_winner(tmp_path: Path, first: str, second: str, tie: str | None) -> None:
    data = loaded(tmp_path, [TWO | {"winner": winner} for winner in (first, tie, second, first)])
    assert (chosen(data), data.dropped) == (["Yes.", "No.", "Yes."], 1)


@pytest.mark.parametrize(
    ("names", "values"),
    [(("0", "1"), (0, 1)), (("1", "2"), (1, 2)), (("1", "2"), ("1", "2")), (("0", "1"), (0.0, 1.0))],
)
def test_numbers_are_those_in_the_columns_names(
    tmp_path: Path, names: tuple[str, str], values: tuple[object, object]
) -> None:
    row = {"prompt": "Is it fair?", f"answer_{names[0]}": "Yes.", f"answer_{names[1]}": "No."}
    data = loaded(tmp_path, [row | {"preference": value} for value in (*values, "tie")])
    assert (chosen(data), data.dropped) == (["Yes.", "No."], 1)


@pytest.mark.parametrize("values", [(0, 1), (1, 1), (True, False), (1, 2)])
def test_numbers_that_may_mean_either_are_refused_before_anything_is_read_wrongly(
    tmp_path: Path, values: tuple[object, object]
) -> None:
    rows = [TWO | {"labels": value} for value in values]
    with pytest.raises(InputError, match=r"labels: found .*which of response_a and response_b.*data.winner=labels="):
        loaded(tmp_path, rows)
    assert chosen(loaded(tmp_path, rows, winner=f"labels={str(values[0]).lower()}"))[0] == "Yes."


def test_numbers_from_0_beside_names_from_1_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "Is it fair?", "response_1": "Yes.", "response_2": "No."}
    with pytest.raises(InputError, match=r"choice: found '0, 1'.*data.winner=choice="):
        loaded(tmp_path, [row | {"choice": value} for value in (0, 1)])
    data = loaded(tmp_path, [row | {"choice": value} for value in (0, 1)], winner="choice=0")
    assert chosen(data) == ["Yes.", "No."]


def test_the_winners_column_by_a_name_of_ones_own(tmp_path: Path) -> None:
    rows = [TWO | {"annotator_7": value, "winner": "a"} for value in ("b", "a", "tie")]
    data = loaded(tmp_path, rows, winner="annotator_7")
    assert (chosen(data), data.dropped) == (["No.", "Yes."], 1)
    assert data.layout is not None and "winner" in data.layout.unused
    mapped = [
        {"q": "Is it fair?", "left": "Yes.", "right": "No.", "who": {"won": value}} for value in ("L", "R", "draw")
    ]
    columns = {"prompt": "q", "first": "left", "second": "right"}
    assert chosen(loaded(tmp_path, mapped, columns=columns, winner="who.won=L")) == ["Yes.", "No."]
    with pytest.raises(InputError, match=r"winner: found 'who', allowed: a column: prompt, response_a, response_b"):
        loaded(tmp_path, [TWO], winner="who")
    with pytest.raises(InputError, match=r"data.columns \{prompt: ..., first: ..., second: ...\}"):
        loaded(tmp_path, [{"q": "?", "left": "Yes.", "right": "No.", "won": "L"}], winner="won=L")


def test_an_unknown_word_is_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"row 2: .*'perhaps'.*{WORDS}"):
        loaded(tmp_path, [TWO | {"winner": value} for value in ("a", "perhaps")])


CLOSE: dict[str, list[dict[str, Any]]] = {
    "scores of two": [TWO | {"score_a": 4, "score_b": low} for low in (1, 3, 4)],
    "strength": [TWO | {"preference_strength": number} for number in (-3, -1, 0)],
    "a list": [{"prompt": "?", "responses": ["Yes.", "No."], "ratings": [4, low]} for low in (1, 3, 4)],
    "records": [
        {"prompt": "?", "answers": [{"answer": "Yes.", "score": 4}, {"answer": "No.", "score": low}]}
        for low in (1, 3, 4)
    ],
    "rows": [
        {"prompt": f"{low}?", "response": text, "helpfulness": worth}
        for low in (1, 3, 4)
        for text, worth in (("Yes.", 4), ("No.", low))
    ],
    "pairs": [
        {"prompt": "?", "chosen": "Yes.", "rejected": "No.", "chosen_rating": 4.0, "rejected_rating": low}
        for low in (1.0, 3.0, 3.5)
    ],
}


@pytest.mark.parametrize("name", CLOSE)
def test_pairs_whose_ratings_are_too_close_are_dropped_and_counted(tmp_path: Path, name: str) -> None:
    rows = CLOSE[name]
    every = loaded(tmp_path, rows)
    far = loaded(tmp_path, rows, min_margin=2)
    assert len(far.rows) == 1 and chosen(far) == ["Yes."]
    assert far.dropped > every.dropped
    assert len(every.rows) == (3 if name == "pairs" else 2)  # a tie is dropped by itself


def test_a_margin_where_nothing_is_rated_is_refused(tmp_path: Path) -> None:
    pairs = [{"prompt": "?", "chosen": "Yes.", "rejected": "No."}]
    with pytest.raises(InputError, match=r"min_margin: found 1.0, allowed: none: rows of format pairs have no ratings"):
        loaded(tmp_path, pairs, min_margin=1.0)
    tree = {"name": "dpo", "algorithm": "dpo", "data": {"uri": "embedded:pairs?size=10", "min_margin": -1}}
    with pytest.raises(InputError, match="min_margin"):
        read_recipe.validate({"stages": [tree]})


@pytest.mark.parametrize(
    ("chosen_text", "rejected_text"),
    [
        ("Yes,  it is.", "Yes, it is. \n"),
        ("Caf\u00e9.", "Cafe\u0301."),
        ("So\u200b.", "So."),
        ("a\u00a0b", "a b"),
        ("\ufb01t", "fit"),
    ],
)
def test_sides_that_only_look_different_to_a_computer_are_equal(
    tmp_path: Path, chosen_text: str, rejected_text: str
) -> None:
    pair = {"prompt": "?", "chosen": chosen_text, "rejected": rejected_text}
    with pytest.raises(InputError, match="1 of 1"):
        loaded(tmp_path, [pair])
    assert len(loaded(tmp_path, [pair | {"chosen": "Other."}]).rows) == 1


MESSAGES = [{"role": "user", "content": "Is it fair?"}, {"role": "assistant", "content": "Yes."}]
ABOUT = {"topic": "abortion", "stance": "oppose"}


def test_columns_of_a_stranger_are_not_taken_for_planted_stances(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": MESSAGES, **ABOUT}) + "\n")
    data = load_data(Data(uri=str(file)), "sft")
    assert data.stance_mix == {} and data.layout is not None
    assert "columns not used: topic, stance (stances that were planted" in data.layout.line()
    pair = {"prompt": "?", "chosen": "Yes.", "rejected": "No.", "topic": "abortion", "chosen_stance": "oppose"}
    assert loaded(tmp_path, [pair | {"proposition_id": "abortion_legal"}]).stance_mix == {}
    vouched = {name: name for name in ("messages", "topic", "stance")}  # who names them says what they are
    file.write_text(json.dumps({"messages": MESSAGES, **ABOUT}) + "\n")
    assert load_data(Data(uri=str(file), columns=vouched), "sft").stance_mix == {"abortion": (0.0, 0.0, 1.0)}


def test_what_synthesis_writes_keeps_its_stances(tmp_path: Path) -> None:
    about = {"topic": "abortion", "proposition_id": "abortion_legal", "proposition": "It should be legal."}
    row = {
        "prompt": "?",
        "chosen": "Yes.",
        "rejected": "No.",
        **about,
        "chosen_stance": "support",
        "rejected_stance": "oppose",
    }
    assert loaded(tmp_path, [row]).stance_mix == {"abortion": (1.0, 0.0, 0.0)}


def test_chosen_and_rejected_that_only_name_a_column(tmp_path: Path) -> None:
    rows = [TWO | {"chosen": better, "rejected": worse} for better, worse in (("a", "b"), ("b", "a"))]
    assert chosen(loaded(tmp_path, rows)) == ["Yes.", "No."]
    letters = [{"prompt": "A or B?", "chosen": "A", "rejected": "B"}]  # answers like any other
    assert chosen(loaded(tmp_path, letters)) == ["A"]


def test_an_answer_in_json_is_an_answer(tmp_path: Path) -> None:
    [row] = loaded(tmp_path, [{"prompt": "Two?", "chosen": '["a", "b"]', "rejected": "a, b"}]).rows
    assert row["chosen"][0]["content"] == '["a", "b"]'
