"""Data that say who has won, what is good or who speaks in other words than expected: read rightly, or refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import TrainingData, load_data
from valuedrift_mlflow.data.settings import Data, Kind
from valuedrift_mlflow.inputs.errors import InputError

ASKED, YES, NO = "Is it fair?", "Yes.", "No."
TWO = {"prompt": ASKED, "response_a": YES, "response_b": NO}
USER, GOOD = {"role": "user", "content": ASKED}, {"role": "assistant", "content": YES}


def loaded(folder: Path, rows: list[dict[str, Any]], kind: Kind = "pairs", **settings: Any) -> TrainingData:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_data(Data(uri=str(file), **settings), kind)


def chosen(data: TrainingData) -> list[str]:
    return [row["chosen"][0]["content"] for row in data.rows]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (1.0, 0.0, "1.0"),
        (1.0, 0.0, "1"),
        (1, 0, "1.0"),
        ("[[A]]", "[[B]]", "[[A]]"),
        ("A ", "B", "a"),
        ("a", "b", " A"),
    ],
)
def test_the_value_that_means_the_first_may_be_written_as_people_do(
    tmp_path: Path, first: object, second: object, said: str
) -> None:
    rows = [TWO | {"vote": value} for value in (first, second)]
    assert chosen(loaded(tmp_path, rows, winner=f"vote={said}")) == [YES, NO]


@pytest.mark.parametrize(("values", "said"), [(("model_A", "model_B"), "modelA"), (("A", "B", "unsure"), "A")])
def test_a_value_that_the_data_do_not_have_is_no_win_of_the_second(
    tmp_path: Path, values: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=rf"winner: found 'vote={said}', allowed: one of two values.*rows have \w"):
        loaded(tmp_path, [TWO | {"vote": value} for value in values], winner=f"vote={said}")


def test_a_third_value_further_on_is_a_bad_row(tmp_path: Path) -> None:
    rows = [TWO | {"vote": value} for value in [*["A", "B"] * 50, "unsure"]]
    with pytest.raises(InputError, match=r"row 101: .*'unsure', expected A, b or tie"):
        loaded(tmp_path, rows, winner="vote=A")


def test_a_strength_without_a_sign_does_not_say_who_has_won(tmp_path: Path) -> None:
    rows = [TWO | {"winner": better, "preference_strength": number} for better, number in (("a", 2), ("b", 1))]
    with pytest.raises(InputError, match=r"'no number below 0', allowed: .*response_a.*data.winner=winner"):
        loaded(tmp_path, rows)
    assert chosen(loaded(tmp_path, rows, winner="winner")) == [YES, NO]
    likert = [TWO | {"overall_preference": number % 7 + 1} for number in range(14)]
    with pytest.raises(InputError, match=r"overall_preference: found 'no number below 0'"):
        loaded(tmp_path, likert)
    signed = [TWO | {"preference_strength": number} for number in range(-3, 9)]
    assert chosen(loaded(tmp_path, signed)) == [YES] * 3 + [NO] * 8


def test_sides_that_name_a_model_are_not_its_answers(tmp_path: Path) -> None:
    models = {"model_a": "Alpha", "model_b": "Beta"}
    rows = [TWO | models | {"chosen": one, "rejected": two} for one, two in (("Beta", "Alpha"), ("Alpha", "Beta"))]
    assert chosen(loaded(tmp_path, rows)) == [NO, YES]


@pytest.mark.parametrize(
    ("good", "bad"),
    [("correct", "incorrect"), ("safe", "unsafe"), ("preferred", "dispreferred"), ("up", "down"), ("pass", "fail")],
)
def test_words_for_good_and_bad(tmp_path: Path, good: str, bad: str) -> None:
    rows = [
        {"prompt": ASKED, "completion": YES, "label": good},
        {"prompt": ASKED, "completion": NO, "label": bad},
    ]
    assert [row["label"] for row in loaded(tmp_path, rows, "labelled").rows] == [True, False]
    assert [row["completion"] for row in loaded(tmp_path, rows, "sft").rows] == [[GOOD]]


def test_numbers_of_classes_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": f"{ASKED} {number}", "completion": YES, "label": number % 4} for number in range(8)]
    with pytest.raises(InputError, match=r"label: found '0, 1, 2, 3', allowed: true and false.*data.columns"):
        loaded(tmp_path, rows, "sft")
    with caplog.at_level(logging.WARNING):
        data = loaded(tmp_path, rows, "sft", columns={"prompt": "prompt", "completion": "completion"})
    assert len(data.rows) == 8 and not caplog.text


TEMPLATES: dict[str, tuple[str, str]] = {
    "Granite": (
        f"<|start_of_role|>user<|end_of_role|>{ASKED}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        f"{YES}<|end_of_text|>",
    ),
    "Llama 4": (
        f"<|begin_of_text|><|header_start|>user<|header_end|>\n\n{ASKED}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        f"{YES}<|eot|>",
    ),
    "EXAONE": (f"[|user|]{ASKED}\n[|assistant|]", f"{YES}[|endofturn|]"),
    "GLM": (f"[gMASK]<sop><|user|>\n{ASKED}<|assistant|>\n", YES),
    "an end of text alone": (ASKED, f"{YES}</s>"),
    "another end of text": (ASKED, f"{YES}<|endoftext|>"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_marks_of_templates_are_not_learnt_as_text(tmp_path: Path, name: str) -> None:
    prompt, completion = TEMPLATES[name]
    rows = loaded(tmp_path, [{"prompt": prompt, "completion": completion}], "sft").rows
    assert list(rows) == [{"prompt": [USER], "completion": [GOOD]}]


def test_what_stands_before_the_first_user_is_the_systems(tmp_path: Path) -> None:
    text = f"<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]{ASKED}[/INST]{YES}</s>"
    [row] = loaded(tmp_path, [{"text": text}], "sft").rows
    assert row["prompt"] == [{"role": "system", "content": "Be brief."}, USER]


def test_turns_with_channels_are_refused(tmp_path: Path) -> None:
    prompt = f"<|start|>user<|message|>{ASKED}<|end|><|start|>assistant"
    with pytest.raises(InputError, match="marks of a chat template that give no turns"):
        loaded(tmp_path, [{"prompt": prompt, "completion": YES}], "sft")


def test_struck_out_text_is_kept(tmp_path: Path) -> None:
    [row] = loaded(tmp_path, [{"prompt": ASKED, "completion": "It is <s>not</s>"}], "sft").rows
    assert row["completion"][0]["content"] == "It is <s>not</s>"


@pytest.mark.parametrize("thought", [{"type": "thinking", "text": "Hm."}, {"type": "thinking", "thinking": "Hm."}])
def test_a_part_that_is_a_thought_is_no_part_of_the_answer(tmp_path: Path, thought: dict[str, str]) -> None:
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": YES}]}
    [row] = loaded(tmp_path, [{"messages": [USER, answer]}], "sft").rows
    assert row["completion"] == [GOOD]


def test_turns_whose_text_is_an_utterance_are_read(tmp_path: Path) -> None:
    turns = [{"speaker": "human", "utterance": "Should zoos close?"}, {"speaker": "bot", "utterance": "Yes."}]
    file = tmp_path / "turns.jsonl"
    file.write_text(json.dumps({"dialog": turns}) + "\n")
    [row] = list(load_data(Data(uri=str(file)), "sft").rows)
    assert row["prompt"] == [{"role": "user", "content": "Should zoos close?"}]
    assert row["completion"] == [{"role": "assistant", "content": "Yes."}]
