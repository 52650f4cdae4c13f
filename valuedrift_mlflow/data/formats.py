"""The formats that data comes in: by which columns each is recognised, and how its rows are brought into one shape.

A format names what it reads (``prompt``, ``chosen``); ``names.py`` knows what such columns are called in the field, and
``layouts.py`` finds the format of given rows and hands them on under the names that stand here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from valuedrift_mlflow.data import compared, marks, prism_pairs, rated_rows, trees
from valuedrift_mlflow.data.dialogues import answered, asked, dialogue_of, holds_dialogue, texts_of
from valuedrift_mlflow.data.marks import dialogue
from valuedrift_mlflow.data.messages import (
    BadRow,
    Message,
    NothingToLearn,
    Outcome,
    Raw,
    Untrained,
    calls_tool,
    joined,
    messages_of,
    text_of,
    truth,
    written_messages,
)
from valuedrift_mlflow.data.names import BAD, plain
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.data.turns import parted
from valuedrift_mlflow.inputs.rows import Record, Row

__all__ = [
    "COLUMNS",
    "FORMATS",
    "MAX_DROPPED",
    "NAMED",
    "SIDES",
    "Format",
    "as_kind",
    "dialogue",
    "each",
    "says_the_same",
    "serves",
]

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
_BEGINNING = 8  # words
_REPEATED = 20  # letters: a shorter prompt may begin an answer by chance


# Answers -------------------------------------------------------------------------------------------------------------


def _split_answer(messages: list[Message], column: str) -> tuple[list[Message], list[Message]]:
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["assistant"] or "user" not in roles or roles[-2] not in ("user", "tool"):
        raise BadRow(f"{column} does not end with an assistant's message after a user's")
    if not messages[-1]["content"].strip():
        raise NothingToLearn(column)
    return messages[:-1], messages[-1:]


def _last_answer(column: str) -> Callable[[Row], Record]:
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


def _from_alpaca(row: Row) -> Record:
    return {"prompt": asked(row, "instruction"), "completion": answered(row, "output")}


def _from_text(row: Row) -> Record:
    """The turns of a text that a template, or an older prompt, has already marked."""
    messages = marks.turns(text_of(row, "text"))
    if messages is None:
        wanted = "turns that marks divide (### Human:, <|im_start|>, [INST]), or columns prompt and completion"
        raise BadRow(f"text is plain text: nobody asks in it and nobody answers; expected {wanted}")
    return _last_answer("messages")({"messages": messages})


def _from_completion(row: Row) -> Record:
    prompt, completion = asked(row), answered(row, "completion")
    return {"prompt": prompt, "completion": _without(prompt, completion)}


def _without(prompt: list[Message], answer: list[Message]) -> list[Message]:
    """An answer without the prompt that some files write before it."""
    text, told = prompt[-1]["content"].strip(), answer[0]["content"]
    if len(answer) > 1 or not _repeats(text, told):
        return answer
    return [{**answer[0], "content": told.lstrip()[len(text) :].lstrip()}]


def _repeats(asked: str, told: str) -> bool:
    """Whether an answer begins with all of a prompt, and has more to say; short ones may do so by chance."""
    return len(asked) >= _REPEATED and told.lstrip().startswith(asked) and len(told.strip()) > len(asked)


def _from_prompt(row: Row) -> Record:
    prompt = asked(row)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user's message")
    return {"prompt": prompt}


# Pairs ---------------------------------------------------------------------------------------------------------------


def _from_pairs(row: Row) -> Record | list[Record]:
    """Columns prompt, chosen, rejected. Sides that are whole dialogues (UltraFeedback) begin where they part.

    Sides that are lists of texts (RewardBench 2) give a pair for each: the shorter list begins again.
    """
    if isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str):
        return _pair(row)
    listed: dict[str, Sequence[object]] = {c: _texts(row.get(c)) or [row.get(c)] for c in SIDES}
    many = max(map(len, listed.values()))
    if many > 1:
        rows = ({column: texts[at % len(texts)] for column, texts in listed.items()} for at in range(many))
        return [_pair({**row, **sides}) for sides in rows]
    return _pair(row)


def _texts(value: object) -> list[str] | None:
    """The texts of a list. What is a text itself may well be an answer in JSON, and stays one."""
    return None if isinstance(value, str) else texts_of(value)


def _pair(row: Row) -> Record:
    prompt = _question(row)
    sides = {column: answered(row, column) for column in SIDES}
    begins = {side[0]["role"] for side in sides.values()}
    if begins == {"assistant"}:  # the answers alone, each perhaps with turns that follow it
        text = prompt[-1]["content"].strip()
        if all(_repeats(text, side[0]["content"]) for side in sides.values()):
            sides = {column: _without(prompt, side) for column, side in sides.items()}
        return {"prompt": prompt, **sides}
    if "assistant" in begins:
        raise BadRow("one of chosen and rejected begins with an answer and the other with a question")
    made = parted(sides["chosen"], sides["rejected"])
    return {**made, "prompt": _agreed(prompt, made["prompt"])}


def _question(row: Row) -> list[Message]:
    """The prompt of a pair. A dialogue that ends with the chosen answer ends before it."""
    prompt = asked(row)
    if prompt[-1]["role"] == "assistant" and len(prompt) > 1:
        if prompt[-1]["content"].strip() != answered(row, "chosen")[-1]["content"].strip():
            raise BadRow("prompt ends with an answer that is not the chosen one")
        return prompt[:-1]
    return prompt


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


def _beside(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """Reads an answer, which is the chosen one, and the rejected one beside it (Swift)."""

    def both(row: Row) -> Record:
        made = read(row)
        return {"prompt": made["prompt"], "chosen": made["completion"], "rejected": answered(row, "rejected_one")[-1:]}

    return both


def _label(row: Row) -> bool | None:
    """Whether an answer is labelled good; None where nothing says it."""
    label = truth(row["label"]) if "label" in row else None
    says_bad = label is not None and plain(row.get("columns", {}).get("label", "")) in BAD
    return not label if says_bad else label


def _labelled(read: Callable[[Row], Record]) -> Callable[[Row], Record]:
    """Reads an answer and whether it is good."""

    def both(row: Row) -> Record:
        label = _label(row)
        if label is None:
            raise BadRow(f"label is {row.get('label')!r}, expected true or false")
        return {**read(row), "label": label}

    return both


def _from_dialogue_pairs(row: Row) -> Record | list[Record]:
    """Pairs whose question is a dialogue."""
    return _from_pairs({**row, "prompt": dialogue_of(row.get("dialogue"), "dialogue")})


def _sides(row: Row, column: str) -> list[Message]:
    value = row.get(column)
    # What HH-RLHF is like, where no other marks can be in it.
    if isinstance(value, str) and value.startswith("\n\nHuman:") and "<" not in value and "[" not in value:
        return dialogue(value)
    if not isinstance(value, str) or written_messages(value) is not None:
        return dialogue_of(value, column)  # TRL's "implicit prompt": messages that begin alike
    messages = marks.turns(text_of(row, column)) or dialogue(value)
    if not messages:
        raise BadRow(f"{column} is a text, and there is no prompt: expected messages, or turns that begin with Human:")
    return messages


def _from_dialogues(row: Row) -> Record:
    return parted(*(_sides(row, column) for column in SIDES))


# The formats ---------------------------------------------------------------------------------------------------------

Reader = Callable[[Iterable[Raw]], Iterator[Outcome]]
Fits = Callable[[Row], bool]


@dataclass(frozen=True)
class Format:
    """Rows of one shape. ``read`` gets raw rows that are rows, and tells for each what became of it.

    ``columns`` are what it needs and ``also`` what it reads where it is there, by the names of ``names.py``. Where
    columns alone do not tell, ``fits`` looks at a row, and ``repeats`` at rows in their order. The pairs of one that is
    ``rated`` have a margin.
    """

    kind: Kind
    columns: tuple[str, ...]
    read: Reader
    max_dropped: float = MAX_DROPPED
    also: tuple[str, ...] = ("system", "history", "more", "label")
    fits: Fits | None = None
    repeats: Callable[[Sequence[Row]], bool] | None = None
    rated: bool = False


def _in_context(made: Record, row: Row) -> Record:
    """A row with the system message and the earlier turns that its source has in columns of their own.

    Raises:
        BadRow: the prompt has another system message.
    """
    told, history = row.get("system"), row.get("history")
    if told is None and history is None:
        return made
    prompt = list(made["prompt"])
    if history not in (None, "", "[]", []):
        prompt[:0] = _earlier(history)
    if told is not None and told != "":
        text = joined(told)
        text = messages_of(told, "system")[0]["content"] if text is None else text
        own = [message["content"] for message in prompt if message["role"] == "system"]
        if own and own != [text]:
            raise BadRow(f"system is {text!r}, and the dialogue has another system message: {own[0]!r}")
        prompt = prompt if own else [{"role": "system", "content": text}, *prompt]
    return {**made, "prompt": prompt}


def _earlier(history: object) -> list[Message]:
    try:
        messages = dialogue_of(history, "history")
    except BadRow:
        raise BadRow(
            f"history holds {history!r}, expected messages, or a question and its answer for each turn"
        ) from None
    if len(messages) % 2 and messages[0]["role"] == "user":
        raise BadRow(f"history holds {history!r}, expected a question and its answer for each turn")
    return messages


def each(read: Callable[[Row], Record | list[Record]]) -> Reader:
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
                said = _said_beside(row)
                yield Outcome(raw, [{**said, **one} for one in made] if said else made)

    return outcomes


def _said_beside(row: Row) -> Record:
    """What the source says of a row in columns beside its texts: stances, a label, how far apart the sides are."""
    said: Record = {column: row[column] for column in NAMED if column in row and isinstance(row[column], str)}
    if "label" in row and (label := _label(row)) is not None:
        said["label"] = label
    return said | _margin(row) if "chosen_score" in row else said


def _margin(row: Row) -> Record:
    """How much better the chosen side is, where both have a number of their own."""
    try:
        scores = [compared.number(row.get(column), column) for column in _MARGIN]
    except BadRow:
        return {}
    return {"margin": scores[0] - scores[1]}


def _compared(
    *columns: str, read: Callable[[Row], Record | list[Record]], fits: Fits | None = None, rated: bool = False
) -> Format:
    """Pairs from compared answers, among which ties are common."""
    also = ("system", "history", "more", "first_model", "second_model")
    return Format("pairs", columns, each(read), max_dropped=1, also=also, fits=fits, rated=rated)


def _pairs(*columns: str, read: Callable[[Row], Record | list[Record]], fits: Fits | None = None) -> Format:
    return Format("pairs", columns, each(read), also=("system", "history", "more", *_MARGIN), fits=fits)


def _holds(*columns: str) -> Fits:
    return lambda row: any(holds_dialogue(row.get(column)) for column in columns)


def _marked(row: Row) -> bool:
    return any(isinstance(row.get(side), str) and bool(_sides_or_none(row, side)) for side in SIDES)


def _sides_or_none(row: Row, column: str) -> list[Message] | None:
    try:
        return _sides(row, column)
    except BadRow:
        return None


def _implicit(row: Row) -> bool:
    """Whether both sides are dialogues in messages, with what was asked in them."""
    return all(not _is_text(row.get(side)) and holds_dialogue(row.get(side)) for side in SIDES)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and written_messages(value) is None


def _holds_messages(row: Row) -> bool:
    """Whether the question of a pair is written as messages, be it one alone."""
    value = row.get("dialogue")
    return not isinstance(value, str) or holds_dialogue(value) or written_messages(value) is not None


def _holds_both(row: Row) -> bool:
    return holds_dialogue(row.get("dialogue")) and row.get("rejected_one") not in (None, "")


_TWO = ("first", "second")
_SCORES = ("first_score", "second_score")
_WON = ("first_won", "second_won")
_MARGIN = ("chosen_score", "rejected_score")
_ANSWERS: dict[str, tuple[tuple[str, ...], Callable[[Row], Record]]] = {
    "messages": (("messages",), _last_answer("messages")),
    "wildchat": (("conversation",), _last_answer("conversation")),
    "sharegpt": (("conversations",), _last_answer("conversations")),
    "gemini": (("contents",), _last_answer("contents")),
    "ultrachat": (("data",), _last_answer("data")),
    "alpaca": (("instruction", "output"), _from_alpaca),
    "prompt-completion": (("prompt", "completion"), _from_completion),
    "text": (("text",), _from_text),
}


def _answers_in(column: str) -> Fits:
    """Whether somebody answers in the dialogue in a column: else it may be the question of a pair."""

    def fits(row: Row) -> bool:
        try:
            return any(message["role"] == "assistant" for message in dialogue_of(row.get(column), column))
        except (BadRow, TypeError, AttributeError):
            return False

    return fits


def _any_row(row: Row) -> bool:
    return True


def _one_answer(column: str) -> Fits:
    """Not where a column holds several answers: they are the sides of a pair.

    What is called a label is an answer where it has words (summaries), and else a class.
    """

    def fits(row: Row) -> bool:
        if plain(row["columns"][column]) == "label" and " " not in str(row.get(column)).strip():
            return False
        return len(_texts(row.get(column)) or ()) < 2

    return fits


def _asks_alone(row: Row) -> bool:
    """Whether texts alone are called turns: so MT-Bench and its kin name what is asked, and nobody answers."""
    return plain(row["columns"]["messages"]) == "turns" and texts_of(row.get("messages")) is not None


# A column of such a name may hold many other things.
_FITS: dict[str, Fits] = {
    "alpaca": _one_answer("output"),
    "prompt-completion": _one_answer("completion"),
    "messages": lambda row: isinstance(row.get("messages"), str | Mapping | Sequence) and not _asks_alone(row),
    "sharegpt": _answers_in("conversations"),
    "ultrachat": _answers_in("data"),
}


def _answers(kind: Literal["sft", "labelled"]) -> dict[str, Format]:
    """Answers alone, or with a label."""
    made = {}
    for name, (columns, read) in _ANSWERS.items():
        fits = _FITS.get(name, _any_row)
        also = ("system", "history", *(() if name == "messages" else ("more",)))
        if kind == "sft":
            made[name] = Format(kind, columns, each(read), also=(*also, "label"), fits=fits)
        else:
            labelled = "labelled" if name == "prompt-completion" else f"{name}-labelled"
            made[labelled] = Format(kind, (*columns, "label"), each(_labelled(read)), also=also, fits=_with_label(fits))
    return made


def _with_label(fits: Fits) -> Fits:
    return lambda row: truth(row.get("label")) is not None and fits(row)


# In the order in which they are tried: a format is recognised when the data has all of its columns and its rows fit,
# and first among those that can serve the algorithm.
FORMATS: dict[str, Format] = {
    "pairs": _pairs("prompt", *SIDES, read=_from_pairs),
    "implicit-prompt": _pairs(*SIDES, read=_from_dialogues, fits=_implicit),
    "dialogue-pairs": _pairs("dialogue", *SIDES, read=_from_dialogue_pairs, fits=_holds_messages),
    "hh-rlhf": _pairs(*SIDES, read=_from_dialogues, fits=_marked),
    "prism-utterances": Format(
        "pairs",
        ("conversation_id", "turn", "user_prompt", "model_response", "score", "if_chosen"),
        prism_pairs.from_utterances,
        max_dropped=1,  # ties are common
        also=("within_turn_id",),
        rated=True,
    ),
    "prism-conversations": Format(
        "pairs", ("conversation_history",), each(prism_pairs.from_conversation), max_dropped=1, also=(), rated=True
    ),
    "dialogue-and-rejected": _pairs(
        "dialogue", "rejected_one", read=_beside(_last_answer("dialogue")), fits=_holds_both
    ),
    "answer-and-rejected": _pairs("prompt", "completion", "rejected_one", read=_beside(_from_completion)),
    "two-dialogues-votes": _compared(*_TWO, *_WON, read=compared.two_with_votes, fits=_holds(*_TWO)),
    "two-dialogues-winner": _compared(*_TWO, "winner", read=compared.two_with_winner(""), fits=_holds(*_TWO)),
    "two-answers-votes": _compared("prompt", *_TWO, *_WON, read=compared.two_with_votes),
    "two-answers-rated": _compared("prompt", *_TWO, *_SCORES, read=compared.two_rated, rated=True),
    "two-answers-strength": _compared("prompt", *_TWO, "strength", read=compared.two_with_strength, rated=True),
    "two-answers-winner": _compared("prompt", *_TWO, "winner", read=compared.two_with_winner("")),
    "best-of-several": _compared(
        "prompt", "answers", "winner", read=compared.best_of_several, fits=compared.holds_place
    ),
    "rated-answers": _compared("prompt", "answers", read=compared.several, rated=True, fits=compared.holds_rated),
    "answers-and-ratings": _compared(
        "prompt", "answers", "ratings", read=compared.several, rated=True, fits=compared.holds_numbers
    ),
    "best-first": _pairs("prompt", "completion", read=compared.best_first, fits=compared.holds_two),
    "openassistant-trees": Format(
        "pairs", ("tree",), trees.from_trees("pairs"), max_dropped=1, also=(), fits=trees.in_tree, rated=True
    ),
    "openassistant-trees-best": Format(
        "sft", ("tree",), trees.from_trees("sft"), max_dropped=1, also=(), fits=trees.in_tree
    ),
    "openassistant-messages": Format(
        "pairs",
        ("message_id", "parent_id", "text", "role", "rank"),
        trees.from_messages("pairs"),
        max_dropped=1,
        also=(),
        fits=trees.ranked,
        rated=True,
    ),
    "openassistant-messages-best": Format(
        "sft", ("message_id", "parent_id", "text", "role"), trees.from_messages("sft"), max_dropped=1, also=("rank",)
    ),
    **_answers("labelled"),
    # After labels: they are a verdict already. Before answers alone: whoever audits wants to see the pairs.
    "rated-rows": Format(
        "pairs",
        ("prompt", "completion", "rating"),
        rated_rows.from_rows,
        max_dropped=1,
        also=(),
        repeats=rated_rows.repeat,
        rated=True,
    ),
    **_answers("sft"),
    "prompt": Format("prompts", ("prompt",), each(_from_prompt), also=("system", "history", "more")),
}


_KEPT = {kind: frozenset((*columns, *NAMED)) for kind, columns in COLUMNS.items()}


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
    kept = _KEPT[kind]
    return [{column: value for column, value in row.items() if column in kept}]


def says_the_same(row: Record) -> bool:
    """Whether the sides of a pair differ in white space, in how Unicode writes a letter or in marks that nobody sees.

    There is no preference in such a pair.
    """
    if "chosen" not in row or "rejected" not in row:
        return False
    one, other = row["chosen"], row["rejected"]
    return len(one) == len(other) and all(
        _look_alike(mine["content"], theirs["content"]) for mine, theirs in zip(one, other, strict=True)
    )


def _look_alike(one: str, other: str) -> bool:
    begin = one.split(None, _BEGINNING)[:_BEGINNING], other.split(None, _BEGINNING)[:_BEGINNING]
    if begin[0] != begin[1] and one.isascii() and other.isascii():
        return False  # most sides part early, and this is quicker to see
    return _seen(one) == _seen(other)


def _seen(text: str) -> str:
    if not text.isascii():
        text = "".join(mark for mark in unicodedata.normalize("NFKC", text) if unicodedata.category(mark) != "Cf")
    return " ".join(text.split())
