"""Readers of rows with one answer: the last one of a dialogue, or a question and its answer in columns."""

from __future__ import annotations

from collections.abc import Callable

from valuedrift_mlflow.data import marks
from valuedrift_mlflow.data.dialogues import answered, asked, dialogue_of, following
from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, Untrained, calls_tool, text_of
from valuedrift_mlflow.inputs.rows import Record, Row

_REPEATED = 20  # letters: a shorter prompt may begin an answer by chance


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["assistant"] or "user" not in roles or roles[-2] not in ("user", "tool"):
        raise BadRow(f"{column} does not end with an assistant's message after a user's")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages[:-1], messages[-1:]


def last_answer(column: str) -> Callable[[Row], Record]:
    """Reads the last answer of the dialogue in a column; ``dialogue`` says that those before it are answers too.

    What a user said after it got none and is left out, as are an answer of weight 0 and a call of a tool: it stands in
    no template's notation.
    """

    def read(row: Row) -> Record:
        messages = dialogue_of(row.get(column), column)
        if any(message["role"] == "assistant" for message in messages):
            while messages and (messages[-1]["role"] in ("user", "tool") or _is_untrained(messages[-1])):
                messages.pop()  # nobody answered it
            if not messages:
                raise NothingToLearn(column)
        elif column != "messages":  # what real people wrote and nobody answered
            raise NothingToLearn(column)
        prompt, completion = _split_answer(messages, column)
        return {"prompt": prompt, "completion": completion, "dialogue": True}

    return read


def _is_untrained(message: Message) -> bool:
    return isinstance(message, Untrained) or calls_tool(message)


def from_alpaca(row: Row) -> Record:
    """Columns instruction, input and output."""
    prompt, completion = following(asked(row, "instruction"), answered(row, "output"), "output")
    return {"prompt": prompt, "completion": completion}


def from_text(row: Row) -> Record:
    """The turns of a text that a template, or an older prompt, has already marked."""
    messages = marks.turns(text_of(row, "text"))
    if messages is None:
        wanted = "turns that marks divide (### Human:, <|im_start|>, [INST]), or columns prompt and completion"
        raise BadRow(f"text is plain text: nobody asks in it and nobody answers; expected {wanted}")
    return last_answer("messages")({"messages": messages})


def from_completion(row: Row) -> Record:
    """Columns prompt and completion."""
    prompt, completion = following(asked(row), answered(row, "completion"), "completion")
    return {"prompt": prompt, "completion": without(prompt, completion)}


def without(prompt: list[Message], answer: list[Message]) -> list[Message]:
    """An answer without the prompt that some files write before it."""
    text, told = prompt[-1]["content"].strip(), answer[0]["content"]
    if len(answer) > 1 or not repeats(text, told):
        return answer
    return [{**answer[0], "content": told.lstrip()[len(text) :].lstrip()}]


def repeats(asked: str, told: str) -> bool:
    """Whether an answer begins with all of a prompt, and has more to say; short ones may do so by chance."""
    return len(asked) >= _REPEATED and told.lstrip().startswith(asked) and len(told.strip()) > len(asked)


def from_prompt(row: Row) -> Record:
    """A question alone."""
    prompt = asked(row)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user's message")
    return {"prompt": prompt}
