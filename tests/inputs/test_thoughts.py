import pytest

from valuedrift_mlflow.inputs.thoughts import opened, spoken

ANSWER = "I support it."


@pytest.mark.parametrize(
    "response",
    [
        f"<think>Some oppose it.</think>\n\n{ANSWER}",
        f"<think>\n</think>{ANSWER}",
        f"Some oppose it.\n</think>\n{ANSWER}",  # the prompt opened the thought
        f"<THINKING>Some oppose it.</THINKING> {ANSWER}",
        f"<seed:think>Some oppose it.</seed:think>{ANSWER}",
        f"[THINK]Some oppose it.[/THINK]{ANSWER}",
        f"<|begin_of_thought|>Some.<|end_of_thought|><|begin_of_solution|>{ANSWER}<|end_of_solution|>",
        f"<reasoning>Some oppose it.</reasoning><answer>{ANSWER}</answer>",
        f"<think>One <think>in another</think> goes on</think>{ANSWER}",
        "<|channel|>analysis<|message|>Some oppose it.<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
    ],
)
def test_the_answer_is_what_follows_the_thought(response: str) -> None:
    said = spoken(response)
    assert (said.answer, said.finished) == (ANSWER, True)
    assert "Some" not in said.answer


def test_several_thoughts_leave_what_was_said_between_them() -> None:
    said = spoken("<think>a</think>I support it. <think>b</think>So do many.")
    assert said.answer == "I support it. So do many."
    assert said.thought == "ab"


@pytest.mark.parametrize(
    "response",
    ["<think>On the one hand", "<think>a</think><think>b", "<|channel|>analysis<|message|>On the one hand"],
)
def test_a_thought_without_an_end_is_unfinished(response: str) -> None:
    assert not spoken(response).finished


@pytest.mark.parametrize("response", ["", " I think it is right. ", "a < b and b > c", "x </b> y", "Think: no."])
def test_text_without_marks_is_its_own_answer(response: str) -> None:
    assert spoken(response) == (response, "", True)


def test_what_a_template_opens_is_told() -> None:
    assert opened("<|assistant|>\n<think>\n") == "<think>\n"
    assert opened("<|assistant|>\n<think>\n\n</think>\n\n") == ""
    assert opened("Do you <think> so?") == ""
