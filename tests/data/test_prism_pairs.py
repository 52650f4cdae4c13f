from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.data.messages import assistant, user
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError

Answer = tuple[str, float | None, bool]  # text, score, gone on with


def utterances(conversation: str, *turns: tuple[str, list[Answer]]) -> list[dict[str, Any]]:
    """The rows of a conversation, with the columns of the published file."""
    return [
        {
            "utterance_id": f"ut-{conversation}-{turn}-{place}",
            "interaction_id": f"int-{conversation}-{turn}",
            "conversation_id": conversation,
            "user_id": "user7",
            "turn": turn,
            "within_turn_id": place,
            "conversation_type": "values guided",
            "user_prompt": prompt,
            "model_response": text,
            "model_name": "gpt-4",
            "model_provider": "openai",
            "score": score,
            "if_chosen": chosen,
        }
        for turn, (prompt, answers) in enumerate(turns)
        for place, (text, score, chosen) in enumerate(answers)
    ]


def conversation(identity: str, *turns: tuple[str, list[Answer]]) -> dict[str, Any]:
    """The same conversation as ``conversations.jsonl`` has it."""
    history: list[dict[str, Any]] = []
    for turn, (prompt, answers) in enumerate(turns):
        asked = {"turn": turn, "role": "user", "content": prompt, "model_provider": None, "model_name": None}
        history.append(asked | {"score": None, "if_chosen": None, "within_turn_id": None})
        for place, (text, score, chosen) in enumerate(answers):
            model = {"turn": turn, "role": "model", "content": text, "model_provider": "openai", "model_name": "gpt-4"}
            history.append(model | {"score": score, "if_chosen": chosen, "within_turn_id": place})
    return {
        "conversation_id": identity,
        "user_id": "user7",
        "conversation_type": "values guided",
        "opening_prompt": turns[0][0],
        "conversation_turns": len(turns),
        "conversation_history": history,
    }


def jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def load(file: Path, **settings: Any) -> TrainingData:
    return datasets.load_data(Data(uri=str(file), **settings), "pairs")


TALK: tuple[tuple[str, list[Answer]], ...] = (
    ("Is tea good?", [("Yes.", 60, False), ("It is.", 90, True), ("No.", 5, False), ("Perhaps.", 20, False)]),
    ("Why?", [("Taste.", 40, True), ("Because.", 80, False)]),  # the person went on with the lower one
    ("Thanks.", [("Bye.", 50, True), ("Welcome.", 50, False)]),  # a tie
)
EXPECTED = [
    {"prompt": [user("Is tea good?")], "chosen": [assistant("It is.")], "rejected": [assistant("No.")]},
    {
        "prompt": [user("Is tea good?"), assistant("It is."), user("Why?")],
        "chosen": [assistant("Because.")],
        "rejected": [assistant("Taste.")],
    },
]


def test_best_and_worst_of_each_turn_in_the_dialogue_that_went_on(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path, utterances("c0", *TALK)))
    assert (data.format, data.rows) == ("prism-utterances", EXPECTED)
    assert (data.dropped, data.bad) == (2, 0)  # the two rows of the tie


def test_conversations_give_the_pairs_of_their_utterances(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path, [conversation("c0", *TALK), conversation("c1", TALK[2])]))
    assert (data.format, data.rows) == ("prism-conversations", EXPECTED)
    assert data.dropped == 1  # the conversation whose only turn is a tie


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_of_utterances_are_read_as_the_lines_are(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame(utterances("c0", *TALK))
    file = tmp_path / f"data.{ending}"
    frame.to_csv(file, index=False) if ending == "csv" else frame.to_parquet(file)
    assert list(load(file).rows) == EXPECTED


def test_missing_text_and_missing_scores_give_no_pair(tmp_path: Path) -> None:
    turns: list[tuple[str, list[Answer]]] = [
        ("One?", [("EMPTY STRING", 90, True), ("b", 10, False)]),
        ("EMPTY STRING", [("c", 90, True), ("d", 10, False)]),
        ("Three?", [("e", None, True), ("f", 10, False)]),
        ("Four?", [("EMPTY STRING", 99, False), ("g", 70, True), ("h", 10, False)]),
    ]
    # Nothing of the first two turns can be shown; the third one's answer can, though nobody rated it.
    expected = {
        "prompt": [user("Three?"), assistant("e"), user("Four?")],
        "chosen": [assistant("g")],
        "rejected": [assistant("h")],
    }
    assert load(jsonl(tmp_path, utterances("c0", *turns))).rows == [expected]
    assert load(jsonl(tmp_path, [conversation("c0", *turns)])).rows == [expected]


def test_among_equals_at_the_top_the_one_that_went_on(tmp_path: Path) -> None:
    turn: tuple[str, list[Answer]] = ("Tea?", [("a", 80, False), ("b", 80, True), ("c", 30, False), ("d", 30, False)])
    [row] = load(jsonl(tmp_path, utterances("c0", turn))).rows
    assert (row["chosen"], row["rejected"]) == ([assistant("b")], [assistant("c")])


def test_conversations_do_not_see_each_other(tmp_path: Path) -> None:
    rows = load(jsonl(tmp_path, utterances("c0", *TALK) + utterances("c1", *TALK))).rows
    assert rows == EXPECTED * 2


def test_a_turn_that_stands_apart_from_its_conversation_is_bad(tmp_path: Path) -> None:
    first, second = utterances("c0", *TALK), utterances("c1", *TALK)
    file = jsonl(tmp_path, first[:4] + second + first[4:])
    with pytest.raises(InputError) as caught:
        load(file)
    assert len(caught.value.problems) == 4  # the rows of turns 1 and 2 of c0
    assert "row 13" in caught.value.problems[0] and "turn 1" in caught.value.problems[0]
    assert load(file, on_bad_row="skip").rows == [EXPECTED[0], *EXPECTED]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": "high"}, "score is 'high'"),
        ({"turn": None}, "turn is None"),
        ({"conversation_id": ""}, "conversation_id"),
        ({"model_response": None}, "model_response is None"),
    ],
)
def test_a_bad_utterance_has_its_number_and_the_others_still_pair(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = utterances("c0", *TALK)
    rows[0] |= change
    file = jsonl(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        load(file)
    [line] = caught.value.problems
    assert "row 1" in line and reason in line
    data = load(file, on_bad_row="skip")
    assert (data.rows, data.bad) == (EXPECTED, 1)


def test_a_conversation_without_a_history_is_bad(tmp_path: Path) -> None:
    good, bad = conversation("c0", *TALK), conversation("c1", *TALK)
    bad["conversation_history"][0] |= {"role": "system"}
    with pytest.raises(InputError, match="role user, or model after it") as caught:
        load(jsonl(tmp_path, [good, bad, good | {"conversation_history": []}]))
    assert ["row 2" in line or "row 3" in line for line in caught.value.problems] == [True, True]


def test_turns_whose_scores_are_close_are_dropped_and_counted(tmp_path: Path) -> None:
    """The first turn's scores are 85 apart, the second's 40."""
    data = load(jsonl(tmp_path, utterances("c0", *TALK)), min_margin=50)
    assert (data.rows, data.dropped) == (EXPECTED[:1], 4)  # the four rows of the second turn and of the tie
    data = load(jsonl(tmp_path, [conversation("c0", *TALK), conversation("c1", TALK[1])]), min_margin=50)
    assert (data.rows, data.dropped) == (EXPECTED[:1], 1)
