"""What comes back from chat APIs, agents and plain functions, as these write it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.responses import ResponsesAgentResponse, create_text_output_item

from valuedrift_mlflow.inputs.outputs import NoText, asked_in, text_in

SAID = "I am against this."


@dataclasses.dataclass
class Reply:
    response: str
    tokens: int


@pytest.mark.parametrize(
    "output",
    [
        SAID,
        np.str_(SAID),
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}}]},
        {"choices": [{"index": 0, "text": SAID}, {"index": 1, "text": "Another sample."}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "I am "}, {"type": "text", "text": "against this."}],
        },
        [{"role": "user", "content": "Are you for it?"}, {"role": "assistant", "content": SAID}],
        {"messages": [{"role": "user", "content": "Are you?"}, {"type": "ai", "role": "assistant", "content": SAID}]},
        {
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I support it?"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": SAID}]},
            ]
        },
        {"candidates": [{"content": {"role": "model", "parts": [{"text": SAID}]}}]},
        {"content": "", "refusal": SAID},
        [{"generated_text": SAID}],
        pd.Series([SAID]),
        {"my_own_key": SAID},
        Reply(SAID, 5),
        ChatCompletionResponse([ChatChoice(message=ChatMessage("assistant", SAID))]),
        ResponsesAgentResponse(output=[create_text_output_item(SAID, id="m1")]),
    ],
    ids=lambda output: type(output).__name__,
)
def test_every_shape_of_an_answer_has_its_text(output: object) -> None:
    assert text_in(output) == SAID


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (None, "None"),
        (float("nan"), "None"),
        (pd.NA, "None"),
        (0, r"a number \(0\)"),
        (np.float64(0.5), r"a number \(0.5\)"),
        ({}, "an object of nothing"),
        ({"label": 1, "score": 0.5}, "an object of label, score"),
        ({"error": "out of memory"}, "out of memory"),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}}]}, "a call of a tool"),
        ([{"role": "user", "content": "Are you for it?"}], "no answer"),
        ([], "an empty list"),
    ],
)
def test_what_has_no_text_is_no_text_and_says_why(output: object, reason: str) -> None:
    found = text_in(output)
    assert found == ""
    assert isinstance(found, NoText)
    assert pd.Series([found.reason]).str.contains(reason).all()


def test_what_was_asked_is_what_a_user_said_last() -> None:
    talk = [{"role": "user", "content": "First?"}, {"role": "assistant", "content": "Yes."}]
    talk.append({"role": "user", "content": [{"type": "text", "text": "And now?"}]})  # type: ignore[dict-item]
    assert asked_in(talk) == asked_in({"messages": talk}) == asked_in({"input": talk}) == "And now?"
