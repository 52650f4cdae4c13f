"""Layouts in which teams have their data, with the rows that they expect of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data, Kind
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.recipe import read as read_recipe

GIVEN = Path(__file__).parents[2].parent / "shared" / "data" / "formats"
ASKED, YES, NO = "Is it fair?", "Yes, it is.", "No, it is not."
USER, SYSTEM = {"role": "user", "content": ASKED}, {"role": "system", "content": "Be brief."}
GOOD, BAD = {"role": "assistant", "content": YES}, {"role": "assistant", "content": NO}


def read(folder: Path, row: dict[str, Any], kind: Kind) -> dict[str, Any]:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [found] = load_data(Data(uri=str(file)), kind).rows
    return dict(found)


ANSWERS: dict[str, dict[str, Any]] = {
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": YES}]},
    "trailing user turn": {"messages": [USER, GOOD, {"role": "user", "content": "Thanks."}]},
    "parts": {"messages": [USER | {"content": [{"type": "text", "text": ASKED}]}, GOOD]},
    "capitals": {"messages": [{"role": "User", "content": ASKED}, {"role": "ASSISTANT", "content": YES}]},
    "model": {"messages": [USER, {"role": "model", "content": YES}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": ASKED}]}, {"role": "model", "parts": [{"text": YES}]}]},
    "json in a text": {"messages": json.dumps([USER, GOOD])},
    "json in a prompt": {"prompt": json.dumps([USER]), "completion": YES},
    "speakers": {"dialog": [{"speaker": "Human", "text": ASKED}, {"speaker": "Assistant", "text": YES}]},
    "texts in turn": {"conversations": [ASKED, YES]},
    "ultrachat": {"data": [ASKED, YES]},
    "dolly": {"instruction": ASKED, "context": "", "response": YES},
    "question": {"question": ASKED, "response": YES},
    "query": {"query": ASKED, "response": YES},
    "prompt and response": {"prompt": ASKED, "response": YES},
    "flan": {"inputs": ASKED, "targets": YES},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, ANSWERS[name], "sft") == {"prompt": [USER], "completion": [GOOD]}


PAIRS: dict[str, dict[str, Any]] = {
    "implicit prompt": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "won": {"user_prompt": ASKED, "win_response": YES, "lose_response": NO},
    "orca": {"question": ASKED, "chosen": YES, "rejected": NO},
    "distilabel": {"input": ASKED, "chosen": YES, "rejected": NO},
    "alpaca": {"instruction": ASKED, "input": "", "chosen": YES, "rejected": NO},
    "sharegpt": {
        "conversations": [{"from": "human", "value": ASKED}],
        "chosen": {"from": "gpt", "value": YES},
        "rejected": {"from": "gpt", "value": NO},
    },
    "swift": {"messages": [USER, GOOD], "rejected_response": NO},
    "openai": {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    "winner by number": {"prompt": ASKED, "response_0": NO, "response_1": YES, "better_response_id": 1},
    "strength": {"prompt": ASKED, "response_1": YES, "response_2": NO, "preference_strength": -1},
    "scores": {"question": {"full_text": ASKED}, "answer_0": NO, "answer_1": YES, "score_0": -0.5, "score_1": 0.5},
    "arena": {"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"},
    "ranks": {"prompt": ASKED, "answers": [{"answer": t, "rank": r} for t, r in ((NO, 3), (YES, 1), ("Hm.", 2))]},
    "ratings": {
        "instruction": ASKED,
        "completions": [{"response": t, "overall_score": s} for t, s in (("Hm.", 5), (YES, 8.5), (NO, 2))],
    },
    "turns in the prompt": {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "chosen": YES, "rejected": NO},
    "chatml in the prompt": {
        "prompt": f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
        "chosen": YES,
        "rejected": NO,
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, PAIRS[name], "pairs") == {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


TIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (PAIRS["arena"], {"winner": "tie (bothbad)"}),
    (PAIRS["scores"], {"score_0": 0.0, "score_1": -0.0}),
    (PAIRS["ratings"], {"completions": [{"response": text, "overall_score": 4} for text in (YES, NO)]}),
    (PAIRS["strength"], {"preference_strength": 0}),
]


@pytest.mark.parametrize(("row", "tie"), TIES)
def test_ties_are_dropped_and_counted(tmp_path: Path, row: dict[str, Any], tie: dict[str, Any]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in (row | tie, row, row | tie)))
    data = load_data(Data(uri=str(file)), "pairs")
    assert (len(data.rows), data.dropped) == (1, 2)


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": ASKED, "chosen": YES, "rejected": NO}, "pairs"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "pairs"),
        ({"messages": [USER, GOOD]}, "sft"),
        ({"messages": [SYSTEM, USER, GOOD]}, "sft"),
        ({"instruction": ASKED, "output": YES}, "sft"),
    ],
)
def test_a_system_prompt_in_a_column_of_its_own_is_used(
    tmp_path: Path, column: str, row: dict[str, Any], kind: Kind
) -> None:
    assert read(tmp_path, row | {column: "Be brief."}, kind)["prompt"] == [SYSTEM, USER]


def test_earlier_turns_in_a_column_of_their_own_are_used(tmp_path: Path) -> None:
    row = {"instruction": ASKED, "output": YES, "system": "Be brief.", "history": [["Hello.", "Hi."]]}
    said = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    assert read(tmp_path, row, "sft")["prompt"] == [SYSTEM, *said, USER]


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"system": "Be long.", "messages": [SYSTEM, USER, GOOD]}, "sft", "another system message"),
        ({"prompt": "Why not?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "pairs", "answer something else"),
        ({"prompt": ASKED, "chosen": f"{YES}<|im_end|>", "rejected": NO}, "pairs", "marks of a chat template"),
        ({"instruction": ASKED, "completions": [{"response": YES, "overall_score": 4}]}, "pairs", "two or more"),
        (
            {"prompt": ASKED, "response_0": NO, "response_1": YES, "better_response_id": "7"},
            "pairs",
            "expected response_0, response_1",
        ),
        ({"instruction": ASKED, "output": YES, "history": ["Hello."]}, "sft", "a question and its answer"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_row(
    tmp_path: Path, row: dict[str, Any], kind: Kind, reason: str
) -> None:
    with pytest.raises(InputError, match=f"row 1: .*{reason}"):
        read(tmp_path, row, kind)


def test_labelled_dialogues(tmp_path: Path) -> None:
    found = read(tmp_path, {"messages": [USER, GOOD], "label": "false"}, "labelled")
    assert found == {"prompt": [USER], "completion": [GOOD], "label": False}


READABLE: dict[Kind, tuple[str, ...]] = {
    "pairs": (
        *("skywork", "orca_dpo", "distilabel_orca", "sharegpt_dpo", "nectar", "ultrafeedback_raw", "pku_saferlhf"),
        *(
            "lmsys_arena",
            "argilla_mix",
            "tulu3_pref",
            "ultrafeedback_bin",
            "hh_differ",
            "hh_human_human",
            "bom",
            "crlf",
        ),
    ),
    "sft": ("sharegpt", "dolly", "parts", "end_user", "wildchat1m", "kto_bool"),
}


@pytest.mark.skipif(not GIVEN.is_dir(), reason="teams' files are not beside the checkout")
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in READABLE.items() for name in names])
def test_files_of_the_field(kind: Kind, name: str) -> None:
    data = load_data(Data(uri=str(GIVEN / f"{name}.jsonl")), kind)
    assert len(data.rows) == 8
    first = data.rows[0]
    assert first["prompt"][-1]["content"].endswith("Should our country accept more refugees?")
    assert first["chosen" if kind == "pairs" else "completion"][0]["content"].startswith("Yes")


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"q": ASKED, "good": YES, "bad": NO}, {"prompt": "q", "chosen": "good", "rejected": "bad"}),
        (
            {"data": {"q": ASKED, "answers": [{"t": YES}, {"t": NO}]}},
            {"prompt": "data.q", "chosen": "data.answers.0.t", "rejected": "data.answers.1.t"},
        ),
        (
            {"blob": json.dumps({"q": ASKED, "a": {"t": YES}}), "no.t": NO, "messages": "not used"},
            {"prompt": "blob.q", "chosen": "blob.a.t", "rejected": "no.t"},
        ),
    ],
)
def test_columns_by_names_of_ones_own(tmp_path: Path, row: dict[str, Any], columns: dict[str, str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [found] = load_data(Data(uri=str(file), columns=columns), "pairs").rows
    assert found == {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"q": ASKED, "good": YES}) + "\n")
    with pytest.raises(InputError, match=r"row 1: .*no bad: there is no bad among q, good"):
        load_data(Data(uri=str(file), columns={"prompt": "q", "chosen": "good", "rejected": "bad"}), "pairs")
    tree = {"name": "dpo", "algorithm": "dpo", "data": {"uri": str(file), "columns": {"question": "q"}}}
    with pytest.raises(InputError, match=r"data.columns: found 'question', allowed: prompt, chosen"):
        read_recipe.validate({"stages": [tree]})


def test_an_unknown_layout_names_the_mapping_to_try(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"q": ASKED, "chosen": YES, "worse": NO}) + "\n")
    with pytest.raises(
        InputError, match=r"found 'q, chosen, worse'.*data.columns \{prompt: ..., chosen: chosen, rejected: ...\}"
    ):
        load_data(Data(uri=str(file)), "pairs")
