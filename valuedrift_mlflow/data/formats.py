"""The formats that data comes in: by which columns each is recognised, and how its rows are brought into one shape.

A format names what it reads (``prompt``, ``chosen``); ``names.py`` knows what such columns are called in the field, and
``layouts.py`` finds the format of given rows and hands them on under the names that stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from valuedrift_mlflow.data import answers, compared, pairs, prism_pairs, rated_rows, trees
from valuedrift_mlflow.data.beside import SCORES_OF_SIDES, EachRow, Reader, and_label
from valuedrift_mlflow.data.dialogues import dialogue_of, holds_dialogue, texts_of
from valuedrift_mlflow.data.kinds import SIDES
from valuedrift_mlflow.data.messages import BadRow, truth
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.inputs.tables import plain

MAX_DROPPED = 0.01  # share of rows that may be dropped before it is an error
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


def _compared(
    *columns: str, read: Callable[[Row], Record | list[Record]], fits: Fits | None = None, rated: bool = False
) -> Format:
    """Pairs from compared answers, among which ties are common."""
    also = ("system", "history", "more", "first_model", "second_model")
    return Format("pairs", columns, EachRow(read), max_dropped=1, also=also, fits=fits, rated=rated)


def _pairs(*columns: str, read: Callable[[Row], Record | list[Record]], fits: Fits | None = None) -> Format:
    return Format("pairs", columns, EachRow(read), also=("system", "history", "more", *SCORES_OF_SIDES), fits=fits)


def _holds(*columns: str) -> Fits:
    return lambda row: any(holds_dialogue(row.get(column)) for column in columns)


_TWO = ("first", "second")
_SCORES = ("first_score", "second_score")
_WON = ("first_won", "second_won")
_ANSWERS: dict[str, tuple[tuple[str, ...], Callable[[Row], Record]]] = {
    "messages": (("messages",), answers.last_answer("messages")),
    "wildchat": (("conversation",), answers.last_answer("conversation")),
    "sharegpt": (("conversations",), answers.last_answer("conversations")),
    "gemini": (("contents",), answers.last_answer("contents")),
    "ultrachat": (("data",), answers.last_answer("data")),
    "alpaca": (("instruction", "output"), answers.from_alpaca),
    "prompt-completion": (("prompt", "completion"), answers.from_completion),
    "text": (("text",), answers.from_text),
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
        return len(pairs.several_texts(row.get(column)) or ()) < 2

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
            made[name] = Format(kind, columns, EachRow(read), also=(*also, "label"), fits=fits)
        else:
            labelled = "labelled" if name == "prompt-completion" else f"{name}-labelled"
            made[labelled] = Format(
                kind, (*columns, "label"), EachRow(and_label(read)), also=also, fits=_with_label(fits)
            )
    return made


def _with_label(fits: Fits) -> Fits:
    return lambda row: truth(row.get("label")) is not None and fits(row)


# In the order in which they are tried: a format is recognised when the data has all of its columns and its rows fit,
# and first among those that can serve the algorithm.
FORMATS: dict[str, Format] = {
    "pairs": _pairs("prompt", *SIDES, read=pairs.from_pairs),
    "implicit-prompt": _pairs(*SIDES, read=pairs.from_dialogues, fits=pairs.implicit),
    "dialogue-pairs": _pairs("dialogue", *SIDES, read=pairs.from_dialogue_pairs, fits=pairs.holds_messages),
    "hh-rlhf": _pairs(*SIDES, read=pairs.from_dialogues, fits=pairs.marked),
    "prism-utterances": Format(
        "pairs",
        ("conversation_id", "turn", "user_prompt", "model_response", "score", "if_chosen"),
        prism_pairs.from_utterances,
        max_dropped=1,  # ties are common
        also=("within_turn_id",),
        rated=True,
    ),
    "prism-conversations": Format(
        "pairs", ("conversation_history",), EachRow(prism_pairs.from_conversation), max_dropped=1, also=(), rated=True
    ),
    "dialogue-and-rejected": _pairs(
        "dialogue", "rejected_one", read=pairs.with_rejected(answers.last_answer("dialogue")), fits=pairs.holds_both
    ),
    "answer-and-rejected": _pairs(
        "prompt", "completion", "rejected_one", read=pairs.with_rejected(answers.from_completion)
    ),
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
    "prompt": Format("prompts", ("prompt",), EachRow(answers.from_prompt), also=("system", "history", "more")),
}
