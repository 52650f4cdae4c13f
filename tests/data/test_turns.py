"""Which turns of a dialogue are learnt from, weights, pairs that part before their last turn, refused roles."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError

Row = dict[str, Any]


def said(text: str, **more: Any) -> list[Row]:
    """Messages by their first letters: ``u1 a1 u2 a2``."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[word[0]], "content": word} | more.get(word, {}) for word in text.split()]


def words(messages: list[Row]) -> str:
    return " ".join(message["content"] for message in messages)


def file_of(folder: Path, *rows: Row, **settings: Any) -> Data:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(uri=str(file), **settings)


@pytest.mark.parametrize(
    ("dialogue", "unlearnt", "expected"),
    [
        ("u1 a1", (), [("u1", "a1")]),
        ("s u1 a1 u2 a2 u3 a3", (), [("s u1", "a1 u2 a2 u3 a3")]),
        ("u1 a1 u2 a2 u3", (), [("u1", "a1 u2 a2")]),  # nobody answered the last
        ("u1 a1 u2 a2 u3 a3", ("a2",), [("u1", "a1"), ("u1 a1 u2 a2 u3", "a3")]),
        ("u1 a1 u2 a2 u3 a3", ("a1",), [("u1 a1 u2", "a2 u3 a3")]),
        ("u1 a1 u2 a2", ("a2",), [("u1", "a1")]),
        ("a0 u1 a1", (), [("a0 u1", "a1")]),  # a greeting answers nobody
    ],
)
def test_every_answer_is_learnt_from_once(
    tmp_path: Path, dialogue: str, unlearnt: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    data = file_of(tmp_path, {"messages": said(dialogue, **{word: {"weight": 0} for word in unlearnt})})
    rows = load_data(data, "sft").rows
    assert [(words(row["prompt"]), words(row["completion"])) for row in rows] == expected
    assert all(set(message) == {"role", "content"} for row in rows for message in row["prompt"] + row["completion"])
    assert list(stream(data)) == list(rows)  # audits read the same


def test_the_last_answer_alone(tmp_path: Path) -> None:
    data = file_of(tmp_path, {"messages": said("u1 a1 u2 a2")})
    (row,) = load_data(data, "sft", turns="last").rows
    assert (words(row["prompt"]), words(row["completion"])) == ("u1 a1 u2", "a2")
    (row,) = load_data(data, "prompts").rows
    assert words(row["prompt"]) == "u1 a1 u2"


def test_an_answer_that_a_prompt_holds_is_not_learnt_from(tmp_path: Path) -> None:
    (row,) = load_data(file_of(tmp_path, {"prompt": said("u1 a1 u2"), "completion": said("a2")}), "sft").rows
    assert (words(row["prompt"]), words(row["completion"])) == ("u1 a1 u2", "a2")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    data = file_of(tmp_path, {"messages": said("u1 a1", a1={"weight": 0.5})})
    with pytest.raises(InputError, match=r"row 1\b.*messages holds the weight 0\.5, expected 0 or 1"):
        load_data(data, "sft")


def test_nothing_to_learn_from_is_dropped(tmp_path: Path) -> None:
    rows = [{"messages": said("u1 a1", a1={"weight": weight})} for weight in (0, 1, None)]
    data = load_data(file_of(tmp_path, *rows, on_bad_row="skip"), "sft")
    assert (len(data.rows), data.dropped) == (2, 1)


@pytest.mark.parametrize("prompt", [{}, {"prompt": "u1"}])
def test_pairs_that_part_before_their_last_turn(tmp_path: Path, prompt: Row) -> None:
    sides = {"chosen": said("s u1 a1 u2 a2"), "rejected": said("s u1 b1 u2 a2".replace("b1", "a9"))}
    for kind in ("pairs", None):
        (row,) = stream(file_of(tmp_path, prompt | sides), kind)
        assert {name: words(said) for name, said in row.items()} == {
            "prompt": "s u1",
            "chosen": "a1 u2 a2",
            "rejected": "a9 u2 a2",
        }


def test_sides_of_several_turns_beside_a_prompt(tmp_path: Path) -> None:
    row = {"prompt": said("u1"), "chosen": said("a1 u2 a2"), "rejected": said("a9")}
    (made,) = load_data(file_of(tmp_path, row), "pairs").rows
    assert made == row


def test_dialogues_that_part_in_what_a_user_says_have_no_preference(tmp_path: Path) -> None:
    good = {"chosen": said("u1 a1"), "rejected": said("u1 a9")}
    bad = {"chosen": said("u1 a1 u2 a2"), "rejected": said("u1 a1 u3 a3")}
    data = load_data(file_of(tmp_path, good, bad, on_bad_row="skip"), "pairs")
    assert (len(data.rows), data.dropped) == (1, 1)


def test_rows_that_the_template_refuses_are_bad_rows(tmp_path: Path) -> None:
    def refused(row: Row) -> str:
        return "no system here" if row["prompt"][0]["role"] == "system" else ""

    rows = [{"messages": said(text)} for text in ("u1 a1", "s u1 a1", "u1 a1 u2 a2")]
    with pytest.raises(InputError, match=r"row 2\b.*no system here"):
        load_data(file_of(tmp_path, *rows), "sft", refused=refused)
    data = load_data(file_of(tmp_path, *rows, on_bad_row="skip"), "sft", refused=refused)
    assert (len(data.rows), data.bad) == (2, 1)
