"""Layouts of public datasets and trainers: each row stands in columns as its dataset or trainer has them."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data, Kind
from valuedrift_mlflow.inputs.errors import InputError

ASKED, YES, NO = "Is it fair?", "Yes, it is.", "No, it is not."
USER, SYSTEM = {"role": "user", "content": ASKED}, {"role": "system", "content": "Be brief."}
GOOD, BAD = {"role": "assistant", "content": YES}, {"role": "assistant", "content": NO}
BEFORE = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
Rows = dict[str, Any] | list[dict[str, Any]]


def file_of(folder: Path, rows: Rows) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ([rows] if isinstance(rows, dict) else rows)))
    return str(file)


def read(folder: Path, rows: Rows, kind: Kind, **settings: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in load_data(Data(uri=file_of(folder, rows), **settings), kind).rows]


def said(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


ANSWERS: dict[str, dict[str, Any]] = {
    "gsm8k, orca-math": {"question": ASKED, "answer": YES},
    "MetaMath": {"query": ASKED, "response": YES, "type": "GSM"},
    "NuminaMath": {"problem": ASKED, "solution": YES, "answer": "42"},
    "OpenMathInstruct": {"problem": ASKED, "generated_solution": YES, "expected_answer": "4"},
    "input and output": {"input": ASKED, "output": YES},
    "Vertex": {"input_text": ASKED, "output_text": YES},
    "Nemotron": {"input": [USER], "output": YES, "category": "chat", "license": "cc", "reasoning": "off"},
    "mental health counselling": {"Context": ASKED, "Response": YES},
    "capitals and spaces": {"User Prompt": ASKED, "Model Response": YES},
    "Daring-Anteater": {
        "conversations": [{"from": "User", "value": ASKED, "label": None}, {"from": "Assistant", "value": YES}],
        "mask": "User",
    },
    "Capybara": {"source": "x", "conversation": [{"input": ASKED, "output": YES}]},
    "Swift's ShareGPT": {"conversation": [{"human": ASKED, "assistant": YES}]},
    "pairs of texts": {"conversations": [[ASKED, YES]]},
    "no_robots": {"prompt": "x", "prompt_id": "y", "messages": [USER, GOOD], "category": "z"},
    "dialogue": {"dialogue": [USER, GOOD]},
    "a record around messages": {"messages": {"messages": [USER, GOOD]}},
    "Alpaca with its prompt": {"instruction": ASKED, "input": "", "output": YES, "text": f"Below is ... {ASKED} {YES}"},
    "Python's notation": {"messages": str([USER, GOOD])},
    "a message in JSON": {"prompt": json.dumps(USER), "completion": json.dumps(GOOD)},
    "a message in Python's notation": {"prompt": str(USER), "completion": str([GOOD])},
    "content before the role": {
        "messages": json.dumps([{"content": ASKED, "role": "user"}, {"content": YES, "role": "assistant"}])
    },
    "turns in JSON": {"conversation": json.dumps([{"input": ASKED, "output": YES}])},
    "a record in JSON": {"messages": json.dumps({"id": 1, "messages": [{"id": 1, **USER}, {"id": 2, **GOOD}]})},
    "messages with more keys, in JSON": {"messages": json.dumps([{"id": 1, **USER}, {"id": 2, **GOOD}])},
    "pandas' notation": {"messages": f"[{USER}\n {GOOD}]"},
    "Guanaco": {"text": f"### Human: {ASKED}### Assistant: {YES}"},
    "ChatML": {"text": f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n{YES}<|im_end|>\n"},
    "Llama 3": {
        "text": f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n{YES}<|eot_id|>"
    },
    "Llama 2": {"text": f"<s>[INST] {ASKED} [/INST] {YES} </s>"},
    "Gemma": {"text": f"<bos><start_of_turn>user\n{ASKED}<end_of_turn>\n<start_of_turn>model\n{YES}<end_of_turn>\n"},
    "Zephyr": {"text": f"<|user|>\n{ASKED}</s>\n<|assistant|>\n{YES}</s>"},
    "Vicuna": {"text": f"USER: {ASKED} ASSISTANT: {YES}</s>"},
    "Alpaca's text": {
        "text": "Below is an instruction that describes a task. Write a response that appropriately completes it.\n\n"
        f"### Instruction:\n{ASKED}\n\n### Response:\n{YES}"
    },
    "OIG": {"text": f"<human>: {ASKED}\n<bot>: {YES}"},
    "lines": {"text": f"User: {ASKED}\nAssistant: {YES}"},
    "HH-RLHF's text": {"text": f"\n\nHuman: {ASKED}\n\nAssistant: {YES}"},
    "an answer in a list": {"prompt": ASKED, "completion": [YES]},
    "summaries": {"prompt": ASKED, "label": f" {YES}"},
    "Dahoas' texts": {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "response": f" {YES}"},
    "a prompt with its speaker": {"prompt": f"User: {ASKED}", "response": YES},
    "a prompt with the answer's mark": {"prompt": f"{ASKED}\nAssistant:", "response": f" {YES}"},
    "the whole dialogue as the answer": {"prompt": ASKED, "completion": [USER, GOOD]},
    "a record around the answer": {"prompt": ASKED, "response": {"text": YES, "model": "m"}},
    "a user's last word after the answer": {
        "prompt": [USER],
        "completion": [GOOD, {"role": "user", "content": "Bye."}],
    },
    "an end of a turn": {
        "prompt": f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
        "completion": f"{YES}<|im_end|>\n",
    },
    "null columns of a union": {"messages": None, "prompt": ASKED, "completion": YES, "chosen": None, "rejected": None},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, ANSWERS[name], "sft") == [{"prompt": [USER], "completion": [GOOD]}]


LABELLED: dict[str, tuple[dict[str, Any], str]] = {
    "LLaMA-Factory's KTO": ({"conversations": [USER, GOOD], "kto_tag": True}, "kto_tag"),
    "Alpaca with a tag": ({"instruction": ASKED, "input": "", "output": YES, "kto_tag": True}, "kto_tag"),
    "messages": ({"messages": [USER, GOOD], "label": True}, "label"),
    "axolotl": ({"instruction": ASKED, "completion": YES, "label": True}, "label"),
    "argilla's KTO": ({"prompt": ASKED, "completion": [USER, GOOD], "label": True, "rating": 5}, "label"),
    "yes and no": ({"prompt": ASKED, "response": YES, "label": "yes"}, "label"),
    "labels that say bad": ({"prompt": ASKED, "response": YES, "is_unsafe": False}, "is_unsafe"),
    "words": ({"prompt": ASKED, "response": YES, "label": "desirable"}, "label"),
    "BeaverTails": ({"prompt": ASKED, "response": YES, "category": {"hate": False}, "is_safe": True}, "is_safe"),
    "thumbs": ({"question": ASKED, "answer": YES, "thumbs_up": "1"}, "thumbs_up"),
    "text": ({"text": f"### Human: {ASKED}### Assistant: {YES}", "label": "good"}, "label"),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_answers(tmp_path: Path, name: str) -> None:
    row, column = LABELLED[name]
    bad = {True: False, False: True, "desirable": "undesirable", "1": "0", "good": "bad", "yes": "no"}[row[column]]
    found = read(tmp_path, [row, row | {column: bad}], "labelled")
    assert [answer["label"] for answer in found] == [True, False]
    assert (found[0]["prompt"], found[0]["completion"]) == ([USER], [GOOD])
    assert len(read(tmp_path, [row, row | {column: bad}], "sft")) == 1  # the good one alone is learnt from


def test_labels_are_believed_before_ratings(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "completion": t, "label": label, "score": 5} for t, label in ((YES, True), (NO, True))]
    assert [row["label"] for row in read(tmp_path, rows, "labelled")] == [True, True]
    assert stream(Data(uri=file_of(tmp_path, rows))).kind == "labelled"


def two(first: str, second: str, **more: Any) -> dict[str, Any]:
    return {first: NO, second: YES, **more}


PAIRS: dict[str, Rows] = {
    "torchtune": {"chosen_conversations": [USER, GOOD], "rejected_conversations": [USER, BAD]},
    "stack-exchange-paired": {"qid": 1, "question": ASKED, "response_j": YES, "response_k": NO},
    "OpenRLHF": {"context_messages": [USER], "chosen": YES, "rejected": NO},
    "axolotl": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "UltraInteract": {
        "trajectory": [{"from": "user", "value": ASKED}],
        "chosen": YES,
        "rejected": NO,
        "parent_id": "p",
    },
    "CValues": {"prompt": ASKED, "pos_resp": YES, "neg_resp": NO},
    "chosen_response": {"prompt": ASKED, "chosen_response": YES, "rejected_response": NO},
    "response_chosen": {"instruction": ASKED, "response_chosen": YES, "response_rejected": NO, "score_chosen": 2},
    "preferred": {"input": ASKED, "preferred": YES, "dispreferred": NO},
    "Together": {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    "dialogues with ratings": {"prompt": ASKED, "responses": [[USER, BAD], [USER, GOOD]], "scores": [1, 2]},
    "dialogues in rated rows": [{"prompt": ASKED, "response": [USER, a], "score": s} for a, s in ((BAD, 1), (GOOD, 2))],
    "records around the sides": {"prompt": ASKED, "chosen": {"text": YES}, "rejected": {"text": NO}},
    "answers without a rating": {
        "instruction": ASKED,
        "generations": [NO, "Hm.", YES, "Well."],
        "ratings": ["1", "N/A", "5", None],
    },
    "sides with a user's last word": {
        "prompt": ASKED,
        "chosen": [USER, GOOD, {"role": "user", "content": "Thanks."}],
        "rejected": [USER, BAD, {"role": "user", "content": "No."}],
    },
    "dpo-mix": {"dataset": "x", "chosen": [USER, GOOD], "rejected": [USER, BAD], "chosen_rating": 5.0},
    "scores that contradict": {"prompt": ASKED, "chosen": YES, "rejected": NO, "chosen_score": 1, "rejected_score": 3},
    "Capybara's pairs": {"prompt": f"User: {ASKED}", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "mlabonne's ChatML": {
        "prompt": f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
        "chosen": f"{YES}<|im_end|>\n",
        "rejected": f"{NO}<|im_end|>\n",
    },
    "HH-RLHF's marks, a line apart": {
        "chosen": f"\n\nHuman: {ASKED}\nAssistant: {YES}",
        "rejected": f"\n\nHuman: {ASKED}\nAssistant: {NO}",
    },
    "HH-RLHF in three columns": {
        "prompt": f"\n\nHuman: {ASKED}\n\nAssistant:",
        "chosen": f" {YES}",
        "rejected": f" {NO}",
    },
    "stack-exchange-preferences": {
        "question": ASKED,
        "answers": [{"answer_id": i, "pm_score": i, "selected": False, "text": t} for i, t in enumerate((NO, YES))],
    },
    "the better of several": {"prompt": ASKED, "responses": [NO, YES], "best_response": 1},
    "PKU-SafeRLHF by one dimension": two("response_0", "response_1", prompt=ASKED, safer_response_id=1),
    "arena-hard": two("response_a", "response_b", prompt=ASKED, verdict="B>>A"),
    "MT-Bench's judge": two("response_a", "response_b", prompt=ASKED, verdict="[[B]]"),
    "MultiPref": two("completion_a", "completion_b", prompt=ASKED, preference="B-is-clearly-better"),
    "answers in one list": {"prompt": ASKED, "chosen": [YES], "rejected": [NO]},
    "Magpie": {"instruction": ASKED, "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "Swift": {"messages": [USER, GOOD], "rejected_messages": [USER, BAD]},
    "an answer and a rejected one": {"query": ASKED, "response": YES, "rejected_response": NO},
    "the dialogue with its answer": {"messages": [USER, GOOD], "chosen": YES, "rejected": NO},
    "both begin with a prompt": {
        "prompt": f"{ASKED} Tell me in a word.",
        "chosen": f"{ASKED} Tell me in a word. {YES}",
        "rejected": f"{ASKED} Tell me in a word.\n{NO}",
    },
    "sides with the whole text": {
        "prompt": f"[INST] {ASKED} [/INST]",
        "chosen": f"[INST] {ASKED} [/INST] {YES}</s>",
        "rejected": f"[INST] {ASKED} [/INST] {NO}</s>",
    },
    "LLaMA-Factory's older pairs": {"instruction": ASKED, "input": "", "output": [YES, NO]},
    "distilabel": {"instruction": ASKED, "generations": [NO, YES, "Hm."], "ratings": [1.0, 5.0, 3.0]},
    "UltraFeedback by its finer score": {
        "instruction": ASKED,
        "completions": [{"response": NO, "fine-grained_score": 1.5}, {"response": YES, "fine-grained_score": 4.5}],
    },
    "ratings as texts": {"instruction": ASKED, "generations": [NO, YES], "ratings": ["1", "5"]},
    "Prometheus": [
        {"orig_instruction": ASKED, "orig_response": t, "orig_score": s} for t, s in ((NO, "1"), (YES, "5"))
    ],
    "comments": two("comment_a", "comment_b", post_text=ASKED, preferred="comment_b"),
    "lists": {"prompt": ASKED, "responses": [NO, YES], "scores": [0.1, 0.9]},
    "ranks": {"prompt": ASKED, "responses": [NO, YES], "ranks": [2, 1]},
    "Gemini's preferences": {
        "contents": [{"role": "user", "parts": [{"text": ASKED}]}],
        "completions": [
            {"score": worth, "completion": {"role": "model", "parts": [{"text": text}]}}
            for text, worth in ((NO, 0), (YES, 1))
        ],
    },
    "answers in messages": {
        "prompt": ASKED,
        "responses": [{"messages": None, "text": t, "score": s} for t, s in ((NO, 1), (YES, 2))],
    },
    "summarize from feedback": {
        "info": {"id": "1", "post": ASKED, "title": "t"},
        "summaries": [{"text": NO, "policy": "a"}, {"text": YES, "policy": "b"}],
        "choice": 1,
    },
    "SHP": two("human_ref_A", "human_ref_B", history=ASKED, labels=0, score_A=3, score_B=9, score_ratio=3.0),
    "HelpSteer3": two("response1", "response2", context=[USER], overall_preference=2, domain="general"),
    "Preference-Collection": two("orig_response_A", "orig_response_B", orig_instruction=ASKED, orig_preference="B"),
    "Vertex's comparisons": two("candidate_0", "candidate_1", input_text=ASKED, choice=1),
    "names of models": two("response_a", "response_b", prompt=ASKED, model_a="m", model_b="n", winner="n"),
    "the name of the column": two("answer_a", "answer_b", question=ASKED, preferred="answer_b"),
    "the better answer itself": two("output_1", "output_2", prompt=ASKED, preference=YES),
    "numbers as in the names": two("response_1", "response_2", prompt=ASKED, label=2),
    "numbers as texts": two("response_0", "response_1", prompt=ASKED, better_response_id="1.0"),
    "model_1_answer": two("model_1_answer", "model_2_answer", question=ASKED, winner="model_2"),
    "ratings of two": two("response_a", "response_b", prompt=ASKED, rating_a="2", rating_b="4"),
    "scores after the names": two("answer_1", "answer_2", prompt=ASKED, answer_1_score=0, answer_2_score=1),
    "LMSYS on Kaggle": {
        "prompt": json.dumps([ASKED]),
        "response_a": json.dumps([NO]),
        "response_b": json.dumps([YES]),
        **{"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0, "model_a": "m", "model_b": "n"},
    },
    "arena with a question": two("response_a", "response_b", question=ASKED, winner="B"),
    "dialogues": {"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "b"},
    "HelpSteer2": [{"prompt": ASKED, "response": text, "helpfulness": worth} for text, worth in ((NO, 1), (YES, 4))],
    "three rows": [{"prompt": ASKED, "response": t, "score": s} for t, s in (("Hm.", 2), (NO, 1), (YES, 4))],
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(tmp_path: Path, name: str) -> None:
    asked = USER if name != "both begin with a prompt" else USER | {"content": f"{ASKED} Tell me in a word."}
    pair = {"prompt": [asked], "chosen": [GOOD], "rejected": [BAD]}
    assert read(tmp_path, PAIRS[name], "pairs") == [pair]
    labelled = read(tmp_path, PAIRS[name], "labelled")
    assert [(row["completion"], row["label"]) for row in labelled] == [([GOOD], True), ([BAD], False)]
    assert read(tmp_path, PAIRS[name], "prompts")[0]["prompt"] == [asked]
    assert list(stream(Data(uri=file_of(tmp_path, PAIRS[name])))) == [pair]  # so does the audit, which asks for no kind


@pytest.mark.parametrize("verdict", ["A=B", "[[C]]", "tie (bothbad)"])
def test_ties_in_the_words_of_judges(tmp_path: Path, verdict: str) -> None:
    rows = [two("response_a", "response_b", prompt=ASKED, verdict=said) for said in (verdict, "B>A")]
    data = load_data(Data(uri=file_of(tmp_path, rows)), "pairs")
    assert (len(data.rows), data.dropped) == (1, 1)


@pytest.mark.parametrize("names", [("instruction", "output_1", "output_2"), ("instruction", "response1", "response2")])
def test_two_answers_to_an_instruction_and_its_input(tmp_path: Path, names: tuple[str, str, str]) -> None:
    asked, first, second = names  # AlpacaFarm, PandaLM
    row = {asked: "Judge this.", "input": ASKED, first: NO, second: YES, "preference": 2}
    [pair] = read(tmp_path, row, "pairs")
    assert pair["prompt"] == [{"role": "user", "content": f"Judge this.\n\n{ASKED}"}] and pair["chosen"] == [GOOD]


@pytest.mark.parametrize("key", ["train", "loss", "training"])
def test_turns_that_are_marked_as_not_trained(tmp_path: Path, key: str) -> None:
    turns = [USER, GOOD | {key: False}, {"role": "user", "content": "Why?"}, {**BAD, key: True}]  # axolotl, Swift
    [row] = read(tmp_path, {"messages": turns}, "sft")
    assert row["prompt"] == [USER, GOOD, turns[2]] and row["completion"] == [BAD]


def test_a_system_prompt_in_parts(tmp_path: Path) -> None:
    row = {"system": [{"text": "Be brief."}], "messages": [USER, GOOD]}  # Bedrock
    assert read(tmp_path, row, "sft") == [{"prompt": [SYSTEM, USER], "completion": [GOOD]}]


def test_system_prompts_within_answers_are_named(tmp_path: Path) -> None:
    answers = [{"response": t, "overall_score": s, "custom_system_prompt": "Lie."} for t, s in ((NO, 1), (YES, 2))]
    layout = load_data(Data(uri=file_of(tmp_path, {"instruction": ASKED, "completions": answers})), "pairs").layout
    assert layout is not None and "completions.custom_system_prompt" in layout.line()


@pytest.mark.parametrize("row", [{"turns": [ASKED, "Why?"]}, {"prompt": [ASKED, "Why?"], "response": [YES, "So."]}])
def test_questions_are_never_taken_for_answers(tmp_path: Path, row: dict[str, Any]) -> None:
    for kind in ("sft", "pairs"):
        with pytest.raises(InputError):
            read(tmp_path, row, kind)


def test_one_chosen_and_several_rejected_answers_are_several_pairs(tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": [YES], "rejected": [NO, "Maybe."]}  # RewardBench 2
    found = read(tmp_path, row, "pairs")
    assert [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in found] == [
        (YES, NO),
        (YES, "Maybe."),
    ]


def test_turns_of_two_models_part_at_the_first_answer(tmp_path: Path) -> None:
    row = {
        "prompt": json.dumps([ASKED, "Why?"]),
        "response_a": json.dumps([YES, "So."]),
        "response_b": json.dumps([NO, "Because."]),
        **{"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    }
    assert read(tmp_path, row, "pairs") == [{"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}]


def node(text: str, role: str, rank: int | None = None, replies: Any = ()) -> dict[str, Any]:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)}


def test_trees_of_messages(tmp_path: Path) -> None:
    later = node("Why?", "prompter", 0, [node("So.", "assistant", 1), node("Because.", "assistant", 0)])
    tree = node(ASKED, "prompter", None, [node(NO, "assistant", 1), node(YES, "assistant", 0, [later])])
    rows = [{"message_tree_id": "1", "tree_state": "ready", "prompt": tree}]
    asked_on = [USER, GOOD, {"role": "user", "content": "Why?"}]
    because, so = {"role": "assistant", "content": "Because."}, {"role": "assistant", "content": "So."}
    assert read(tmp_path, rows, "pairs") == [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": asked_on, "chosen": [because], "rejected": [so]},
    ]
    assert read(tmp_path, rows, "sft") == [
        {"prompt": [USER], "completion": [GOOD]},
        {"prompt": asked_on, "completion": [because]},
    ]
    flat = [
        {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank}
        for name, parent, text, role, rank in (
            ("1", None, ASKED, "prompter", None),
            ("2", "1", NO, "assistant", 1),
            ("3", "1", YES, "assistant", 0),
            ("4", "3", "Why?", "prompter", 0),
            ("5", "4", "So.", "assistant", 1),
            ("6", "4", "Because.", "assistant", 0),
        )
    ]
    assert read(tmp_path, flat, "pairs") == read(tmp_path, rows, "pairs")
    assert read(tmp_path, flat, "sft") == read(tmp_path, rows, "sft")
    with pytest.raises(InputError, match=r"row 1: .*does not stand before it in the same tree"):
        read(tmp_path, [{**flat[0], "parent_id": "7", "rank": 2}, *flat], "pairs")


def test_tools_are_context_and_never_the_answer(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "x"}'}}
    turns = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "Found."}]
    tools = [{"type": "function", "function": {"name": "search"}}]
    [row] = read(tmp_path, {"messages": [*turns, GOOD], "tools": tools}, "sft")
    assert row["completion"] == [GOOD]
    assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "tool"]
    assert '"search"' in row["prompt"][1]["content"] and row["prompt"][2]["content"] == "Found."
    with pytest.raises(InputError, match="1 of 1"):  # nothing that is said to the user
        read(tmp_path, {"messages": turns[:2]}, "sft")


@pytest.mark.parametrize(
    "history",
    [
        [["Hello.", "Hi."]],
        [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}],
        json.dumps([["Hello.", "Hi."]]),
        "\n\nHuman: Hello.\n\nAssistant: Hi.",
    ],
)
def test_earlier_turns_in_any_notation(tmp_path: Path, history: object) -> None:
    for column in ("history", "chat_history"):
        [row] = read(tmp_path, {"query": ASKED, "response": YES, column: history}, "sft")
        assert row["prompt"] == [*BEFORE, USER]


@pytest.mark.parametrize("column", ["system", "system_prompt", "systemInstruction", "System Prompt", "sys_prompt"])
def test_a_system_prompt_by_any_name(tmp_path: Path, column: str) -> None:
    [row] = read(
        tmp_path, {"prompt": ASKED, "response_a": YES, "response_b": NO, "winner": "a", column: "Be brief."}, "pairs"
    )
    assert row["prompt"] == [SYSTEM, USER]


@pytest.mark.parametrize("kind", ["sft", "pairs", None])
def test_rows_that_share_no_prompt_are_answers(tmp_path: Path, kind: Kind | None) -> None:
    rows = [{"prompt": f"{ASKED} {i}", "response": YES, "score": i} for i in range(3)]
    if kind == "pairs":
        with pytest.raises(InputError, match="prompt, chosen and rejected"):
            read(tmp_path, rows, "pairs")
    else:
        assert len(list(stream(Data(uri=file_of(tmp_path, rows)), kind))) == 3


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    row = {
        "Question": ASKED,
        "response_chosen": YES,
        "response_rejected": NO,
        "system_prompt": "",
        "id": 1,
        "tools": [],
    }
    layout = load_data(Data(uri=file_of(tmp_path, row)), "pairs").layout
    assert layout is not None
    assert layout.used == {
        **{"chosen": "response_chosen", "rejected": "response_rejected", "prompt": "Question"},
        "system": "system_prompt",
    }
    assert layout.unused == ("id", "tools")
    assert layout.line().endswith("columns not used: id, tools")
    mapped = Data(uri=file_of(tmp_path, row), columns={"prompt": "Question", "completion": "response_chosen"})
    left = load_data(mapped, "sft").layout
    assert left is not None and left.unused == ("response_rejected", "system_prompt", "id", "tools")


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ({"front": ASKED, "back": YES}, "sft", r"nearest is prompt-completion.*\{prompt: ..., completion: ...\}"),
        (
            {"q": ASKED, "chosen": YES, "rejected": NO},
            "pairs",
            r"nearest is pairs.*\{prompt: ..., chosen: chosen, rejected",
        ),
        ({"question": ASKED, "a": YES, "b": NO}, "pairs", r"\{prompt: question, chosen: ..., rejected: ...\}"),
        ({"text": "Once upon a time."}, "sft", "row 1: .*plain text"),
        ({"prompt": f"<|im_start|>{ASKED}", "completion": YES}, "sft", "row 1: .*marks of a chat template"),
        ({"prompt": ASKED, "completion": f"{YES}<|eot_id|>"}, "sft", "row 1: .*marks of a chat template"),
        ({"prompt": ASKED, "completion": [YES, NO]}, "sft", "not preference pairs"),
        ({"prompt": "Other?", "completion": [USER, GOOD]}, "sft", "prompt asks 'Other.', and the dialogue in comp"),
        ({"messages": [USER, BAD], "chosen": YES, "rejected": "Maybe."}, "pairs", "ends with an answer that is not"),
    ],
)
def test_what_is_not_known_is_refused_with_the_way_out(
    tmp_path: Path, row: dict[str, Any], kind: Kind, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, row, kind)
