"""The formats that data comes in: by which columns each is recognised, and how its rows are brought into one shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from valuedrift_mlflow.data import compared, prism_pairs
from valuedrift_mlflow.data.messages import (
    BadRow,
    Message,
    NothingToLearn,
    Outcome,
    Raw,
    Untrained,
    assistant,
    messages_of,
    text_of,
    truth,
    user,
    written_messages,
)
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.data.turns import parted
from valuedrift_mlflow.inputs.rows import Record, Row

# The columns of each kind, under the names that TRL's trainers expect.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
}
SIDES = ("chosen", "rejected")
NAMED = ("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance")  # what some sources say of a row
MAX_DROPPED = 0.01  # share of rows that may be dropped before it is an error


# Answers -------------------------------------------------------------------------------------------------------------


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        raise BadRow(f"{column} does not end with an assistant's message after a user's")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages[:-1], messages[-1:]


def _last_answer(column: str) -> Callable[[Row], Record]:
    """Reads the last answer of the dialogue in a column; ``dialogue`` says that those before it are answers too.

    What a user said after it got none and is left out, as is an answer of weight 0.
    """

    def read(row: Row) -> Record:
        messages = messages_of(row.get(column), column)
        if any(message["role"] == "assistant" for message in messages):
            while messages and (messages[-1]["role"] == "user" or isinstance(messages[-1], Untrained)):
                messages.pop()
            if not messages:
                raise NothingToLearn(column)
        elif column != "messages":  # what real people wrote and nobody answered
            raise NothingToLearn(column)
        prompt, completion = _split_answer(messages, column)
        return {"prompt": prompt, "completion": completion, "dialogue": True}

    return read


def _answer_in(asked: str, answered: str) -> Callable[[Row], Record]:
    """Reads a question and its answer from two columns of texts."""
    return lambda row: {"prompt": [user(text_of(row, asked))], "completion": _answered(row, answered)}


def _from_dolly(row: Row) -> Record:
    made = _answer_in("instruction", "response")(row)
    if isinstance(row.get("context"), str) and row["context"].strip():
        made["prompt"] = [user(f"{row['instruction']}\n\n{row['context']}")]
    return made


def _from_alpaca(row: Row) -> Record:
    asked = text_of(row, "instruction")
    if isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n\n{row['input']}"
    return {"prompt": [user(asked)], "completion": _answered(row, "output")}


def _from_completion(row: Row) -> Record:
    return {"prompt": _asked(row), "completion": _answered(row, "completion")}


def _from_prompt(row: Row) -> Record:
    prompt = _asked(row)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user's message")
    return {"prompt": prompt}


def _asked(row: Row) -> list[Message]:
    asked = row.get("prompt")
    if isinstance(asked, str) and written_messages(asked) is None:
        return _turns_of(text_of(row, "prompt"))
    return messages_of(asked, "prompt")


def _turns_of(text: str) -> list[Message]:
    """A prompt that is a text: one message of a user, or the turns that HH-RLHF's or ChatML's marks divide it into."""
    if not (text.lstrip().startswith("Human:") and "\n\nAssistant:" in text) and "<|im_start|>" not in text:
        return [user(text)]
    turns = [
        user(content) if role == "user" else {"role": role, "content": content}
        for role, content in _CHATML.findall(text)
    ]
    messages = turns or dialogue(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    while messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()  # where the answer goes
    if not messages or messages[-1]["role"] != "user":
        raise BadRow("prompt holds turns and does not end with one of a user")
    return messages


def _answered(row: Row, column: str) -> list[Message]:
    answer = row.get(column)
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise NothingToLearn(column)
    if isinstance(answer, str) and written_messages(answer) is None:
        if _CHATML_MARK.search(answer):
            raise BadRow(f"{column} holds marks of a chat template (<|im_start|>, <|im_end|>), expected its text alone")
        return [assistant(answer)]
    messages = messages_of(answer, column)
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"{column} does not end with an assistant's message")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages


# Pairs ---------------------------------------------------------------------------------------------------------------


def _from_pairs(row: Row) -> Record:
    """Columns prompt, chosen, rejected. Sides that are whole dialogues (UltraFeedback) begin where they part."""
    asked = _asked(row)
    sides = {column: _answered(row, column) for column in SIDES}
    begins = {side[0]["role"] for side in sides.values()}
    if begins == {"assistant"}:  # the answers alone, each perhaps with turns that follow it
        return {"prompt": asked, **sides}
    if "assistant" in begins:
        raise BadRow("one of chosen and rejected begins with an answer and the other with a question")
    made = parted(sides["chosen"], sides["rejected"])
    return {**made, "prompt": _agreed(asked, made["prompt"])}


def _agreed(asked: list[Message], dialogue: list[Message]) -> list[Message]:
    """The prompt within the sides, which must hold the question of the column and gets its system message.

    Raises:
        BadRow: they ask different things.
    """
    said = {" ".join(message["content"].split()) for message in dialogue}
    if " ".join(asked[-1]["content"].split()) not in said:
        raise BadRow(f"prompt asks {asked[-1]['content']!r}, and chosen and rejected answer something else")
    told = [message for message in asked if message["role"] == "system"]
    return dialogue if dialogue[0]["role"] == "system" else [*told, *dialogue]


def _from_swift(row: Row) -> Record:
    """A dialogue with the chosen answer, and the rejected one beside it."""
    made = _last_answer("messages")(row)
    return {"prompt": made["prompt"], "chosen": made["completion"], "rejected": _answered(row, "rejected_response")}


def _labelled(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """Reads an answer and whether it is good."""

    def both(row: Row) -> Record:
        label = truth(row.get("label"))
        if label is None:
            raise BadRow(f"label is {row.get('label')!r}, expected true or false")
        return {**read(row), "label": label}

    return both


def _sides_after(asked: str) -> Callable[[Row], Record]:
    """Reads pairs whose question stands in a column of its own, as a text or as a dialogue."""

    def read(row: Row) -> Record:
        prompt = row.get(asked)
        return _from_pairs({**row, "prompt": prompt if isinstance(prompt, str) else messages_of(prompt, asked)})

    return read


def _from_alpaca_pairs(row: Row) -> Record:
    asked = text_of(row, "instruction")
    more = row.get("input")
    return _from_pairs({**row, "prompt": f"{asked}\n\n{more}" if isinstance(more, str) and more.strip() else asked})


def _from_openai(row: Row) -> Record:
    """OpenAI's preference format: a dialogue, the preferred and the other output."""
    asked = row.get("input")
    prompt = messages_of(asked.get("messages") if isinstance(asked, Mapping) else asked, "input.messages")
    sides = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    return {"prompt": prompt} | {side: _answered(row, column) for side, column in sides.items()}


_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)(?:<\|im_end\|>\n?|$)", re.DOTALL)
_CHATML_MARK = re.compile(r"<\|im_(?:start|end)\|>")
_TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
_TURN = re.compile("|".join(_TURNS))


def dialogue(text: str) -> list[Message]:
    r"""Split an HH-RLHF dialogue at its turns.

    >>> dialogue("\n\nHuman: Hi\n\nAssistant: Hello")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    marks = [(match.start(), match.group()) for match in _TURN.finditer(text)]
    messages: list[Message] = []
    for (at, mark), (end, _) in pairwise([*marks, (len(text), "")]):
        content = text[at + len(mark) : end].strip()
        if messages and messages[-1]["role"] == _TURNS[mark]:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": _TURNS[mark], "content": content})
    return messages


def _sides(row: Row, column: str) -> list[Message]:
    value = row.get(column)
    if not isinstance(value, str) or written_messages(value) is not None:
        return messages_of(value, column)  # TRL's "implicit prompt": messages that begin alike
    messages = dialogue(text_of(row, column))
    if not messages:
        raise BadRow(f"{column} is a text, and there is no prompt: expected messages, or turns that begin with Human:")
    return messages


def _from_dialogues(row: Row) -> Record:
    return parted(*(_sides(row, column) for column in SIDES))


# The formats ---------------------------------------------------------------------------------------------------------

Reader = Callable[[Iterable[Raw]], Iterator[Outcome]]


@dataclass(frozen=True)
class Format:
    """Rows of one shape. ``read`` gets raw rows that are rows, and tells for each what became of it."""

    kind: Kind
    columns: tuple[str, ...]
    read: Reader
    max_dropped: float = MAX_DROPPED


_SYSTEM = ("system", "system_prompt", "systemInstruction")


def _in_context(made: Record, row: Row) -> Record:
    """A row with the system message and the earlier turns that its source has in columns of their own.

    Raises:
        BadRow: the prompt has another system message.
    """
    prompt = list(made["prompt"])
    for turn in reversed(row["history"] if isinstance(row.get("history"), list) else []):
        if not (isinstance(turn, Sequence) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise BadRow(f"history holds {turn!r}, expected a question and its answer")
        prompt[:0] = [user(turn[0]), assistant(turn[1])]
    for column in _SYSTEM:
        told = row.get(column)
        if told is None or told == "":
            continue
        text = told if isinstance(told, str) else messages_of(told, column)[0]["content"]
        own = [message["content"] for message in prompt if message["role"] == "system"]
        if own and own != [text]:
            raise BadRow(f"{column} is {text!r}, and the dialogue has another system message: {own[0]!r}")
        prompt = prompt if own else [{"role": "system", "content": text}, *prompt]
    return {**made, "prompt": prompt}


def _each(read: Callable[[Row], Record | list[Record]]) -> Reader:
    """A reader of raw rows that do not depend on each other, which keeps what the source says of their stances."""

    def outcomes(raws: Iterable[Raw]) -> Iterator[Outcome]:
        for raw in raws:
            row = raw.row or {}
            try:
                made = read(row)
                made = [_in_context(one, row) for one in (made if isinstance(made, list) else [made])]
            except NothingToLearn:
                yield Outcome(raw, dropped=1)
            except (BadRow, TypeError, AttributeError) as error:
                yield Outcome(raw, bad=str(error))
            else:
                named = {column: row[column] for column in NAMED if isinstance(row.get(column), str)}
                label = truth(row.get("label"))
                if label is not None:
                    named["label"] = label
                yield Outcome(raw, [{**named, **one} for one in made])

    return outcomes


def _ties(*columns: str, read: Callable[[Row], Record]) -> Format:
    """Pairs from compared answers, among which ties are common."""
    return Format("pairs", columns, _each(_asking_turns(read)), max_dropped=1)


def _asking_turns(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """With the turns that marks in the question divide it into."""

    def turned(row: Row) -> Record:
        made = read(row)
        prompt = made["prompt"]
        return {**made, "prompt": _turns_of(prompt[0]["content"]) if len(prompt) == 1 else prompt}

    return turned


_TWO = ("response_0", "response_1")
_ONE_AND_TWO = ("response_1", "response_2")
# In the order in which they are tried: a format is recognised when the data has all of its columns, and first among
# those that can serve the algorithm.
FORMATS: dict[str, Format] = {
    "pairs": Format("pairs", ("prompt", *SIDES), _each(_from_pairs)),
    "sharegpt-pairs": Format("pairs", ("conversations", *SIDES), _each(_sides_after("conversations"))),
    "alpaca-pairs": Format("pairs", ("instruction", *SIDES), _each(_from_alpaca_pairs)),
    "question-pairs": Format("pairs", ("question", *SIDES), _each(_sides_after("question"))),
    "input-pairs": Format("pairs", ("input", *SIDES), _each(_sides_after("input"))),
    "hh-rlhf": Format("pairs", ("chosen", "rejected"), _each(_from_dialogues)),
    "prism-utterances": Format(
        "pairs",
        ("conversation_id", "turn", "user_prompt", "model_response", "score", "if_chosen"),
        prism_pairs.from_utterances,
        max_dropped=1,  # ties are common
    ),
    "prism-conversations": Format(
        "pairs", ("conversation_history",), _each(prism_pairs.from_conversation), max_dropped=1
    ),
    "swift-pairs": Format("pairs", ("messages", "rejected_response"), _each(_from_swift)),
    "arena": _ties("conversation_a", "conversation_b", "winner", read=compared.arena),
    "pku": _ties(
        "prompt", *_TWO, "better_response_id", read=compared.two_with_winner("prompt", _TWO, "better_response_id")
    ),
    "helpsteer-preference": _ties(
        "prompt",
        *_ONE_AND_TWO,
        "preference_strength",
        read=compared.two_with_strength("prompt", _ONE_AND_TWO, "preference_strength"),
    ),
    "webgpt": _ties(
        "question",
        "answer_0",
        "answer_1",
        "score_0",
        "score_1",
        read=compared.two_rated("question", ("answer_0", "answer_1"), ("score_0", "score_1")),
    ),
    "ultrafeedback": _ties(
        "instruction",
        "completions",
        read=compared.several("instruction", "completions", "response", "overall_score"),
    ),
    "nectar": _ties("prompt", "answers", read=compared.several("prompt", "answers", "answer", "rank", rank=True)),
    "openai-preference": Format("pairs", ("input", "preferred_output", "non_preferred_output"), _each(_from_openai)),
    "messages": Format("sft", ("messages",), _each(_last_answer("messages"))),
    "messages-labelled": Format("labelled", ("messages", "label"), _each(_labelled(_last_answer("messages")))),
    "wildchat": Format("sft", ("conversation",), _each(_last_answer("conversation"))),
    "sharegpt": Format("sft", ("conversations",), _each(_last_answer("conversations"))),
    "gemini": Format("sft", ("contents",), _each(_last_answer("contents"))),
    "ultrachat": Format("sft", ("data",), _each(_last_answer("data"))),
    "alpaca": Format("sft", ("instruction", "output"), _each(_from_alpaca)),
    "labelled": Format("labelled", ("prompt", "completion", "label"), _each(_labelled(_from_completion))),
    "prompt-completion": Format("sft", ("prompt", "completion"), _each(_from_completion)),
    "dolly": Format("sft", ("instruction", "response"), _each(_from_dolly)),
    "question-response": Format("sft", ("question", "response"), _each(_answer_in("question", "response"))),
    "query-response": Format("sft", ("query", "response"), _each(_answer_in("query", "response"))),
    "prompt-response": Format("sft", ("prompt", "response"), _each(_answer_in("prompt", "response"))),
    "inputs-targets": Format("sft", ("inputs", "targets"), _each(_answer_in("inputs", "targets"))),
    "prompt": Format("prompts", ("prompt",), _each(_from_prompt)),
}


def serves(have: Kind, need: Kind) -> bool:
    """Whether rows of one kind can be made from rows of another without inventing anything."""
    return have == need or need == "prompts" or (have, need) == ("pairs", "labelled")


def as_kind(kind: Kind, row: Record) -> list[Record]:
    """The rows of ``kind`` that one row gives: a pair is two labelled answers, a row of any kind has a prompt.

    An answer that is labelled bad is none to learn from, so it gives no row of kind ``sft``. What the source names of
    a row (``NAMED``) stays beside the columns of the kind. A ``label`` beside a pair says nothing of its sides.
    """
    if kind == "sft" and row.get("label") is False:
        return []
    if kind == "labelled" and "chosen" in row:
        named: Record = {column: row[column] for column in ("topic", "proposition_id") if column in row}
        return [
            {
                **named,
                **({"stance": row[f"{side}_stance"]} if f"{side}_stance" in row else {}),
                "prompt": row["prompt"],
                "completion": row[side],
                "label": side == "chosen",
            }
            for side in ("chosen", "rejected")
        ]
    kept = {*COLUMNS[kind], *NAMED}
    return [{column: value for column, value in row.items() if column in kept}]


def says_the_same(row: Record) -> bool:
    """Whether the two sides of a pair differ in white space alone: there is no preference in it."""
    sides = [[" ".join(message["content"].split()) for message in row[side]] for side in SIDES if side in row]
    return len(sides) == len(SIDES) and sides[0] == sides[1]


def recognise(columns: Sequence[str], kind: Kind | None) -> str | None:
    """The first format whose columns are all there and that serves ``kind``, else the first whose columns are there."""
    there = [name for name, form in FORMATS.items() if set(form.columns) <= set(columns)]
    fit = (name for name in there if kind is None or serves(FORMATS[name].kind, kind))
    return next(fit, there[0] if there else None)
