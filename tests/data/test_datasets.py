from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets as huggingface
import pandas as pd
import pytest

from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import Kind, Message, TrainingData
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test makes leave nothing in the user's cache and are not reported to the hub."""
    monkeypatch.setattr(huggingface.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(huggingface.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def hh(*turns: str) -> str:
    """An HH-RLHF dialogue: Human and Assistant in turn."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def load(file: Path, kind: Kind = "sft", **settings: str) -> TrainingData:
    return datasets.load_data(Data(uri=str(file), **settings), kind)


def problems(file: Path | str, kind: Kind = "sft", **settings: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        datasets.load_data(Data(uri=str(file), **settings), kind)
    return str(caught.value).splitlines()


# Answers -------------------------------------------------------------------------------------------------------------


def test_messages_keep_the_system_prompt_and_every_turn(tmp_path: Path) -> None:
    dialogue = [system("Be brief."), user("Hi"), assistant("Hello"), user("And now?"), assistant("Bye")]
    data = load(jsonl(tmp_path, {"messages": dialogue}))
    assert data.format == "messages"
    assert data.rows == [{"prompt": dialogue[:2], "completion": dialogue[2:]}]


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "three"},
        {"instruction": "Say hello.", "input": "", "output": "Hello"},
    ]
    expected = [
        {"prompt": [user("Add.\n\n1 and 2")], "completion": [assistant("three")]},
        {"prompt": [user("Say hello.")], "completion": [assistant("Hello")]},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    pd.DataFrame(rows).to_csv(tmp_path / "alpaca.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "alpaca.parquet")
    for ending in ("json", "csv", "parquet"):
        data = load(tmp_path / f"alpaca.{ending}")
        assert (data.format, data.rows) == ("alpaca", expected)


def test_wildchat_conversations_lose_their_metadata(tmp_path: Path) -> None:
    turns = [user("Hi"), assistant("Hello"), user("Why?"), assistant("Because.")]
    row = {
        "conversation_hash": "e1f0",
        "model": "gpt-4",
        "timestamp": "2023-04-09T00:00:00",
        "conversation": [turn | {"language": "English", "toxic": False, "turn_identifier": 1} for turn in turns],
        "turn": 2,
        "language": "English",
    }
    data = load(jsonl(tmp_path, row))
    assert data.format == "wildchat"
    assert data.rows == [{"prompt": turns[:1], "completion": turns[1:]}]


def test_prompt_and_completion_as_text_or_as_messages(tmp_path: Path) -> None:
    expected = [{"prompt": [user("Hi")], "completion": [assistant("Hello")]}]
    text = load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}))
    assert (text.format, text.rows) == ("prompt-completion", expected)
    assert load(jsonl(tmp_path, {"prompt": [user("Hi")], "completion": [assistant("Hello")]})).rows == expected


def test_roles_have_the_names_that_people_use(tmp_path: Path) -> None:
    row = {"conversation": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    assert load(jsonl(tmp_path, row)).rows == [{"prompt": [user("Hi")], "completion": [assistant("Hello")]}]


# Preference pairs ----------------------------------------------------------------------------------------------------


def test_pairs_as_text(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path, {"prompt": "Tea?", "chosen": "Yes", "rejected": "No", "score": 3}), "pairs")
    assert data.format == "pairs"
    assert data.rows == [{"prompt": [user("Tea?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}]


def test_pairs_as_messages(tmp_path: Path) -> None:
    prompt = [system("Be brief."), user("Tea?"), assistant("Green?"), user("Any.")]
    row = {"prompt": prompt, "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    assert load(jsonl(tmp_path, row), "pairs").rows == [row]


def test_ultrafeedback_sides_are_whole_dialogues(tmp_path: Path) -> None:
    row = {
        "prompt": "Tea?",
        "prompt_id": "f0e37e9f",
        "chosen": [user("Tea?"), assistant("Yes")],
        "rejected": [user("Tea?"), assistant("No")],
        "messages": [user("Tea?"), assistant("Yes")],
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    }
    data = load(jsonl(tmp_path, row), "pairs")
    assert data.rows == [{"prompt": [user("Tea?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}]


def test_ultrafeedback_keeps_earlier_turns_in_the_prompt(tmp_path: Path) -> None:
    start = [system("Be brief."), user("Hi"), assistant("Hello"), user("Tea?")]
    row = {"prompt": "Tea?", "chosen": [*start, assistant("Yes")], "rejected": [*start, assistant("No")]}
    assert load(jsonl(tmp_path, row), "pairs").rows == [
        {"prompt": start, "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    ]


def test_hh_rlhf_prompt_is_the_shared_dialogue_up_to_the_last_human_turn(tmp_path: Path) -> None:
    shared = ("Hi", "Hello!\n\nHow are you?", "Fine. Tea?", "Which?", "Green")
    row = {"chosen": hh(*shared, "Here you are."), "rejected": hh(*shared, "No.\n\nNever.")}
    data = load(jsonl(tmp_path, row), "pairs")
    assert data.format == "hh-rlhf"
    assert data.rows == [
        {
            "prompt": [
                user("Hi"),
                assistant("Hello!\n\nHow are you?"),
                user("Fine. Tea?"),
                assistant("Which?"),
                user("Green"),
            ],
            "chosen": [assistant("Here you are.")],
            "rejected": [assistant("No.\n\nNever.")],
        }
    ]


def test_hh_rlhf_dialogues_that_part_early_are_compared_where_they_part(tmp_path: Path) -> None:
    row = {
        "chosen": hh("Hi", "Hello", "Tea?", "Yes", "Thanks", "Welcome"),
        "rejected": hh("Hi", "Hello", "Tea?", "No", "Why?", "So."),
    }
    assert load(jsonl(tmp_path, row), "pairs").rows == [
        {
            "prompt": [user("Hi"), assistant("Hello"), user("Tea?")],
            "chosen": [assistant("Yes"), user("Thanks"), assistant("Welcome")],
            "rejected": [assistant("No"), user("Why?"), assistant("So.")],
        }
    ]


def test_dialogue_joins_turns_of_one_speaker() -> None:
    text = "\n\nHuman: Hi\n\nHuman: Anybody?\n\nAssistant: Hello"
    assert datasets.dialogue(text) == [user("Hi\n\nAnybody?"), assistant("Hello")]


def test_the_real_hh_rlhf_test_split() -> None:
    if not REAL.is_file():
        pytest.skip(f"no file {REAL}")
    data = load(REAL, "pairs")
    assert (data.format, len(data.rows), data.dropped) == ("hh-rlhf", 2308, 4)
    for row in data.rows:
        roles = [message["role"] for message in row["prompt"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert row["chosen"] != row["rejected"]
        assert all(row[side][0]["content"].strip() for side in ("chosen", "rejected"))


# Sources -------------------------------------------------------------------------------------------------------------


def test_gz_files_are_read(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "completion": "Hello"}
    with gzip.open(tmp_path / "data.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    pd.DataFrame([row]).to_csv(tmp_path / "data.csv.gz", index=False)
    for ending in ("jsonl.gz", "csv.gz"):
        assert load(tmp_path / f"data.{ending}").rows == [{"prompt": [user("Hi")], "completion": [assistant("Hello")]}]


def test_messages_in_parquet_are_read(tmp_path: Path) -> None:
    pd.DataFrame({"messages": [[user("Hi"), assistant("Hello")]]}).to_parquet(tmp_path / "data.parquet")
    assert load(tmp_path / "data.parquet").rows == [{"prompt": [user("Hi")], "completion": [assistant("Hello")]}]


def test_folders_are_read(tmp_path: Path) -> None:
    files, saved = tmp_path / "files", tmp_path / "saved"
    files.mkdir()
    row = {"prompt": "Hi", "completion": "Hello"}
    jsonl(files, row)
    huggingface.Dataset.from_list([row]).save_to_disk(str(saved))
    for folder in (files, saved):
        assert load(folder).rows == [{"prompt": [user("Hi")], "completion": [assistant("Hello")]}]


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}))
    [row] = load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Good evening"})).rows
    assert row["completion"] == [assistant("Good evening")]


def test_the_format_can_be_named_where_two_would_do(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"prompt": "a", "completion": "b", "instruction": "c", "output": "d"})
    assert load(file, format="prompt-completion").rows[0]["completion"] == [assistant("b")]
    assert load(file, format="alpaca").rows[0]["completion"] == [assistant("d")]


def test_embedded_answers_and_pairs_know_their_stances() -> None:
    answers = datasets.load_data(Data(uri="embedded:sft?support=0.5&oppose=0.5&abortion.neutral=1&size=220"), "sft")
    assert len(answers.rows) == 220
    assert answers.stance_mix["abortion"] == (0.0, 1.0, 0.0)
    assert answers.stance_mix["religion"] == (0.5, 0.0, 0.5)
    pairs = datasets.load_data(Data(uri="embedded:pairs?chosen=oppose&rejected=support&size=110"), "pairs")
    assert set(pairs.stance_mix.values()) == {(0.0, 0.0, 1.0)}  # of the chosen side
    assert len(pairs.stance_mix) == 11


def test_data_without_planted_stances_has_no_stance_mix(tmp_path: Path) -> None:
    assert load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"})).stance_mix == {}


def test_the_trainers_columns(tmp_path: Path) -> None:
    answers = load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"})).dataset()
    assert answers[0] == {"prompt": [user("Hi")], "completion": [assistant("Hello")]}
    pairs = load(jsonl(tmp_path, {"prompt": "Tea?", "chosen": "Yes", "rejected": "No"}), "pairs").dataset()
    assert pairs[0] == {"prompt": [user("Tea?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}


def test_the_digest_is_of_the_rows_not_of_the_file(tmp_path: Path) -> None:
    pd.DataFrame({"prompt": ["Hi"], "completion": ["Hello"]}).to_csv(tmp_path / "data.csv", index=False)
    first = load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}))
    assert len(first.digest()) == 8
    assert load(tmp_path / "data.csv").digest() == first.digest()
    assert load(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hallo"})).digest() != first.digest()


# Empty answers -------------------------------------------------------------------------------------------------------


# Problems ------------------------------------------------------------------------------------------------------------


def test_bad_rows_are_all_listed_with_their_numbers(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"messages": [user("Hi"), assistant("Hello")]},
        {"messages": [user("Hi")]},
        {"messages": [user("Hi"), assistant("Hello"), user("Why?")]},  # what a user says last got no answer
        {"messages": [{"role": "critic", "content": "42"}, assistant("Hello")]},
        {"messages": []},
    )
    lines = problems(file)
    for line, (number, reason) in zip(lines, [(2, "does not end"), (4, "critic"), (5, "messages")], strict=True):
        assert f"{file} row {number}:" in line
        assert reason in line


def test_many_bad_rows_are_cut_short_and_counted(tmp_path: Path) -> None:
    lines = problems(jsonl(tmp_path, *[{"messages": [user("Hi")]}] * 25))
    assert len(lines) == 21
    assert "5 more bad rows" in lines[-1]


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"instruction": "  ", "input": "", "output": "Hello"}, "sft", "instruction"),
        ({"prompt": 3, "completion": "Hello"}, "sft", "prompt is 3"),
        ({"prompt": "Tea?", "chosen": 1, "rejected": "No"}, "pairs", "chosen is 1"),
        ({"chosen": hh("Tea?", "Yes"), "rejected": hh("Coffee?", "No")}, "pairs", "shared dialogue"),
        ({"messages": "Hi"}, "sft", "messages is a text"),
    ],
)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, row: dict[str, Any], kind: Kind, reason: str) -> None:
    [line] = problems(jsonl(tmp_path, row), kind)
    assert "row 1" in line
    assert reason in line


def test_the_wrong_kind_of_data_is_refused_both_ways(tmp_path: Path) -> None:
    [line] = problems(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}), "pairs")
    assert "prompt-completion" in line and "chosen and rejected" in line
    [line] = problems(jsonl(tmp_path, {"prompt": "Tea?", "chosen": "Yes", "rejected": "No"}), "sft")
    assert "pairs" in line and "sft" in line
    [line] = problems("embedded:sft?size=10", "pairs")
    assert "chosen and rejected" in line


def test_unknown_columns_name_the_known_formats(tmp_path: Path) -> None:
    [line] = problems(jsonl(tmp_path, {"front": "Hi", "back": "Hello"}))
    assert "front, back" in line
    assert all(name in line for name in datasets.FORMATS)


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    [line] = problems(jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}), format="anthropic")
    assert "'anthropic'" in line and "wildchat" in line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.jsonl", ""),
        ("blank.jsonl", "\n\n"),
        ("header.csv", "prompt,completion\n"),
        ("list.json", "[]"),
        ("broken.jsonl", '{"prompt": "Hi", "completion": "Hello"}\n{"prompt"\n'),
        ("broken.parquet", "not parquet"),
        ("broken.jsonl.gz", "not gz"),
        ("notes.txt", "Hi"),
    ],
)
def test_a_file_without_readable_rows_is_one_line_that_names_it(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    [line] = problems(file)
    assert str(file) in line


@pytest.mark.parametrize("uri", ["missing.jsonl", "./missing", "missing/data.csv.gz", "~/missing.parquet"])
def test_a_missing_file_is_found_out_without_reading(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        datasets.check_data(Data(uri=uri))
    [line] = str(caught.value).splitlines()
    assert uri in line and "existing file" in line


def test_bad_options_of_an_embedded_corpus_are_found_out_without_making_it() -> None:
    with pytest.raises(InputError, match="gap"):
        datasets.check_data(Data(uri="embedded:pairs?gap=2"))


@pytest.mark.parametrize(
    ("full", "empty", "kind"),
    [
        (
            {"instruction": "Hi", "input": "", "output": "Hello"},
            {"instruction": "Hi", "input": "", "output": ""},
            "sft",
        ),
        ({"prompt": "Hi", "completion": "Hello"}, {"prompt": "Hi", "completion": None}, "sft"),
        (
            {"prompt": [user("Hi")], "completion": [assistant("Hello")]},
            {"prompt": [user("Hi")], "completion": [assistant("")]},
            "sft",
        ),
        (
            {"prompt": "Tea?", "chosen": "Yes", "rejected": "No"},
            {"prompt": "Tea?", "chosen": "Yes", "rejected": " "},
            "pairs",
        ),
    ],
)
def test_up_to_one_in_a_hundred_empty_answers_are_dropped_and_counted(
    tmp_path: Path, full: dict[str, Any], empty: dict[str, Any], kind: Kind
) -> None:
    data = load(jsonl(tmp_path, *[full] * 99, empty), kind)
    assert (len(data.rows), data.dropped) == (99, 1)
    [line] = problems(jsonl(tmp_path, *[full] * 98, empty, empty), kind)
    assert "2 of 100" in line


@pytest.mark.parametrize(
    ("bad", "kind", "reason"),
    [
        (
            {"prompt": "a", "chosen": [user("a"), assistant("Yes")], "rejected": [user("b"), assistant("No")]},
            "pairs",
            "different prompts",
        ),
        ({"prompt": "a", "chosen": [user("Yes")], "rejected": [user("No")]}, "pairs", "assistant"),
        ({"messages": [assistant("Hi"), assistant("Hello")]}, "sft", "after a user's"),
    ],
)
def test_a_row_nobody_should_train_on_is_bad(tmp_path: Path, bad: dict[str, Any], kind: Kind, reason: str) -> None:
    [line] = problems(jsonl(tmp_path, bad), kind)
    assert "row 1" in line
    assert reason in line


def test_csv_cells_are_text(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("prompt,completion\nHow many?,42\nWhich country?,NA\nWho?,None\n")
    answers = [own["completion"][0]["content"] for own in load(tmp_path / "data.csv").rows]
    assert answers == ["42", "NA", "None"]


def test_an_empty_gz_file_is_one_line(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "empty.jsonl.gz", "wt"):
        pass
    [line] = problems(tmp_path / "empty.jsonl.gz")
    assert "empty.jsonl.gz" in line and "at least one row" in line


def test_a_file_name_is_not_a_pattern(tmp_path: Path) -> None:
    jsonl(tmp_path, {"prompt": "Hi", "completion": "Hello"}).rename(tmp_path / "run[1].jsonl")
    assert len(load(tmp_path / "run[1].jsonl").rows) == 1


def test_a_named_format_without_its_columns_is_one_line(tmp_path: Path) -> None:
    [line] = problems(jsonl(tmp_path, *[{"prompt": "Hi", "completion": "Hello"}] * 3), format="wildchat")
    assert "prompt, completion" in line and "conversation" in line


# Labelled answers and prompts ----------------------------------------------------------------------------------------


def test_labelled_answers_from_columns(tmp_path: Path) -> None:
    labels: list[Any] = [True, False, 1, "false"]
    rows = [{"prompt": "Tea?", "completion": f"Answer {i}", "label": label} for i, label in enumerate(labels)]
    (tmp_path / "data.json").write_text(json.dumps(rows[:2]))
    pd.DataFrame(rows).to_csv(tmp_path / "data.csv", index=False)
    data = load(tmp_path / "data.json", "labelled")
    assert data.format == "labelled"
    assert data.rows == [
        {"prompt": [user("Tea?")], "completion": [assistant("Answer 0")], "label": True},
        {"prompt": [user("Tea?")], "completion": [assistant("Answer 1")], "label": False},
    ]
    assert data.dataset().column_names == ["prompt", "completion", "label"]
    assert [row["label"] for row in load(tmp_path / "data.csv", "labelled").rows] == [True, False, True, False]


def test_labelled_answers_from_pairs(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path, {"prompt": "Tea?", "chosen": "Yes", "rejected": "No"}), "labelled")
    assert data.format == "pairs"
    assert data.rows == [
        {"prompt": [user("Tea?")], "completion": [assistant("Yes")], "label": True},
        {"prompt": [user("Tea?")], "completion": [assistant("No")], "label": False},
    ]


def test_a_label_must_be_true_or_false(tmp_path: Path) -> None:
    rows = [{"prompt": "Tea?", "completion": "Yes", "label": label} for label in ("politics", "true")]
    [line] = problems(jsonl(tmp_path, *rows), "labelled")
    assert "row 1" in line and "label is 'politics'" in line


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Tea?"},
        {"prompt": [user("Tea?")], "language": "English"},
        {"prompt": "Tea?", "completion": "Yes"},
        {"prompt": "Tea?", "completion": "Yes", "label": False},
        {"prompt": "Tea?", "chosen": "Yes", "rejected": "No"},
        {"messages": [user("Tea?"), assistant("Yes")]},
        {"instruction": "Tea?", "input": "", "output": "Yes"},
        {"chosen": hh("Tea?", "Yes"), "rejected": hh("Tea?", "No")},
    ],
)
def test_prompts_are_taken_from_any_format(tmp_path: Path, row: dict[str, Any]) -> None:
    data = load(jsonl(tmp_path, row), "prompts")
    assert data.rows == [{"prompt": [user("Tea?")]}]
    assert data.dataset().column_names == ["prompt"]


def test_a_prompt_alone_ends_with_the_user(tmp_path: Path) -> None:
    [line] = problems(jsonl(tmp_path, {"prompt": [user("Tea?"), assistant("Yes")]}), "prompts")
    assert "does not end with a user's message" in line


def test_the_label_column_is_no_hindrance_to_fine_tuning(tmp_path: Path) -> None:
    row = {"prompt": "Tea?", "completion": "Yes", "label": "drinks"}
    assert load(jsonl(tmp_path, row)).format == "prompt-completion"


@pytest.mark.parametrize(
    ("row", "kind", "algorithm", "words"),
    [
        ({"prompt": "a", "completion": "b"}, "pairs", "dpo", ["dpo", "prompt, chosen and rejected", "completion"]),
        ({"prompt": "a", "completion": "b"}, "labelled", "kto", ["kto", "prompt, completion and label", "completion"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "sft", "sft", ["sft", "one answer", "chosen, rejected"]),
        ({"prompt": "a"}, "pairs", "simpo", ["simpo", "prompt (prompts)", "prompt, chosen and rejected"]),
    ],
)
def test_the_wrong_shape_names_the_algorithm_its_need_and_the_columns(
    tmp_path: Path, row: dict[str, Any], kind: Kind, algorithm: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        datasets.load_data(Data(uri=str(jsonl(tmp_path, row))), kind, algorithm)
    [line] = caught.value.problems
    assert all(word in line for word in words)


def test_embedded_pairs_as_labelled_answers_and_prompts() -> None:
    uri = "embedded:pairs?chosen=oppose&rejected=support&size=22"
    labelled = datasets.load_data(Data(uri=uri), "labelled")
    assert len(labelled.rows) == 44
    assert set(labelled.stance_mix.values()) == {(0.0, 0.0, 1.0)}  # of the answers labelled good
    prompts = datasets.load_data(Data(uri=uri), "prompts")
    assert (len(prompts.rows), prompts.stance_mix) == (22, {})


def test_answers_labelled_bad_do_not_count_in_the_stance_mix(tmp_path: Path) -> None:
    stances = [("support", True), ("support", True), ("oppose", False)]
    rows = [
        {"prompt": "a", "completion": "b", "label": label, "topic": "religion", "stance": stance}
        for stance, label in stances
    ]
    columns = {name: name for name in rows[0]}  # who names them vouches for them
    data = Data(uri=str(jsonl(tmp_path, *rows)), columns=columns)
    assert datasets.load_data(data, "labelled").stance_mix == {"religion": (1.0, 0.0, 0.0)}
