"""Layouts in which answers to one prompt are compared: two with a winner or scores, or several ranked or rated.

The best answer is chosen and the worst rejected. A tie has no preference and is dropped; it is counted. Where answers
have numbers, the pair carries their difference as ``margin``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from valuedrift_mlflow.data.dialogues import answered, asked, dialogue_of, following, texts_of
from valuedrift_mlflow.data.messages import BadRow, Message, NothingToLearn, assistant, user
from valuedrift_mlflow.data.names import apart
from valuedrift_mlflow.inputs.rows import Record, Row, alike

TIES = (
    *("tie", "ties", "both", "both_bad", "bothbad", "tie (bothbad)", "both bad", "neither", "none", "equal", "same"),
    *("draw", "no preference", "neutral", "0.5", "", "null", "nan", "[[c]]", "a=b", "b=a"),
)
# What says of two answers that it is the first, or the second.
WORDS = (
    ("a", "model_a", "response_a", "answer_a", "assistant_a", "option_a", "first", "left"),
    ("b", "model_b", "response_b", "answer_b", "assistant_b", "option_b", "second", "right"),
)
# How judges write it: [[A]], A>>B, A-is-clearly-better. Of two that are equal they write [[C]] or A=B.
_JUDGED = re.compile(r"\[\[(\w)\]\]|(\w)(?:\s*>{1,3}\s*\w|[-_ ]is[-_ ](?:\w+[-_ ])?better)")
_SAID = ("response", "answer", "text", "completion", "output", "content", "generation", "message", "reply", "summary")
_WORTH = (
    "overall_score",
    "overall",
    "score",
    "rating",
    "reward",
    "rank",
    "ranking",
    "fine_grained_score",
    "fine-grained_score",
    "grade",
    "pm_score",
)
_SIGNED = "a number below 0 where the first is better"


class Rated(NamedTuple):
    """An answer with how good it is: the higher the better."""

    said: list[Message]
    worth: float


def best_and_worst(answers: Sequence[Rated], column: str) -> Record:
    """The sides of a pair from at least two answers, and how far apart their numbers are.

    Raises:
        BadRow: fewer than two.
        NothingToLearn: all are worth the same.
    """
    if len(answers) < 2:
        raise BadRow(f"{column} has {len(answers)} answers with a number, expected two or more")
    ranked = sorted(answers, key=lambda answer: -answer.worth)
    margin = ranked[0].worth - ranked[-1].worth
    if margin == 0:
        raise NothingToLearn(column)
    return {"chosen": ranked[0].said, "rejected": ranked[-1].said, "margin": margin}


def number(value: object, column: str) -> float:
    """A number, also where a table holds it as text.

    Raises:
        BadRow: it is none.
    """
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise BadRow(f"{column} is {value!r}, expected a number")
    return found


def _two(row: Row) -> tuple[Record, Record]:
    """The prompt and both answers, as two rows with ``prompt`` and ``completion``.

    Answers that are dialogues are compared where they part; without a column for the prompt it is what they share.
    """
    sides = [_said(row, column) for column in ("first", "second")]
    if any(len(side) > 1 for side in sides):
        shared = sides[0][: alike(*sides)]
        # Back to where somebody asked: an answer may be common to both, too.
        while shared and shared[-1]["role"] != "user":
            shared.pop()
        if not shared or min(map(len, sides)) <= len(shared):
            raise BadRow("the two dialogues do not begin with the same question")
        return ({"prompt": shared, "completion": [side[len(shared)]]} for side in sides)  # type: ignore[return-value]
    prompt = asked(row)
    return {"prompt": prompt, "completion": sides[0]}, {"prompt": prompt, "completion": sides[1]}


def _said(row: Row, column: str) -> list[Message]:
    """One of two answers. Lists of texts beside a list of questions are the turns of a dialogue."""
    questions, texts = texts_of(row.get("prompt")), texts_of(row.get(column))
    if questions and texts:
        both = zip(questions, texts, strict=False)
        return [message for question, text in both for message in (user(question), assistant(text))]
    value = row.get(column)
    return answered(row, column) if isinstance(value, str) or texts else dialogue_of(value, column)


def _compared(row: Row, worths: Callable[[Row], tuple[float, float]], column: str) -> Record:
    first, second = _two(row)
    better, worse = worths(row)
    sides = best_and_worst([Rated(first["completion"], better), Rated(second["completion"], worse)], column)
    return {"prompt": first["prompt"], **sides}


def two_rated(row: Row) -> Record:
    """Two answers with a number each: WebGPT's comparisons, SHP."""
    return _compared(row, lambda row: tuple(number(row.get(c), c) for c in ("first_score", "second_score")), "scores")  # type: ignore[arg-type, return-value]


def two_with_strength(row: Row) -> Record:
    """Two answers and a number below 0 where the first is better: HelpSteer's preferences."""

    def worths(row: Row) -> tuple[float, float]:
        strength = number(row.get("strength"), f"strength ({_SIGNED})")
        # In halves: their difference, which becomes the margin, is the strength itself.
        return -strength / 2, strength / 2

    return _compared(row, worths, "strength")


def two_with_votes(row: Row) -> Record:
    """Two answers and for each whether it has won: 1 or 0, both 0 in a tie."""
    made = _compared(
        row, lambda row: (number(row.get("first_won"), "won"), number(row.get("second_won"), "won")), "won"
    )
    # 1 and 0 say who has won, not by how much.
    del made["margin"]
    return made


def two_with_winner(means_first: str, means_second: str = "") -> Callable[[Row], Record]:
    """Reads two answers and a column that says which is better.

    ``means_first`` is the value that says that the first is, where the recipe names one, and ``means_second`` the other
    one that the first rows have; without it any other value that is no tie says that the second is. Without either the
    value is a word (``a``, ``model_b``, ``second``), the name of the column or of the model, the number in the columns'
    names, or the better answer itself.
    """

    def read(row: Row) -> Record:
        which = winner(row, means_first, means_second)
        made = _compared(row, lambda _: (float(which == 0), float(which == 1)), "winner")
        # As above: there is no distance in it.
        del made["margin"]
        return made

    return read


def plain_verdict(value: object) -> str:
    """How a value that says who has won is compared with others.

    >>> plain_verdict("[[A]]"), plain_verdict(1.0), plain_verdict(" Model_B ")
    ('a', '1', 'model_b')
    """
    said = str(value).strip().lower()
    if said not in TIES and (judged := _JUDGED.fullmatch(said)):
        said = judged[1] or judged[2]
    return said.removesuffix(".0")  # a table with gaps writes 1 as 1.0


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the winner's column of rows holds besides ties, each once."""
    found = (plain_verdict(row["winner"]) for row in rows if row.get("winner") is not None)
    return [said for said in dict.fromkeys(found) if said not in TIES]


def winner(row: Row, means_first: str = "", means_second: str = "") -> int:
    """0 or 1: which of two answers has won.

    Raises:
        BadRow: the value says neither.
        NothingToLearn: it is a tie.
    """
    value = row.get("winner")
    said = plain_verdict(value)
    if means_first:
        if said == plain_verdict(means_first):
            return 0
        if value is None or said in TIES:
            raise NothingToLearn("winner")
        if means_second and said != means_second:
            raise BadRow(f"winner is {value!r}, expected {means_first}, {means_second} or tie, as in the rows before")
        return 1
    names = [str(row["columns"][side]) for side in ("first", "second")]
    marks = apart(*names)
    for place, side in enumerate(("first", "second")):
        model = str(row.get(f"{side}_model") or names[place]).lower()
        words = (names[place].lower(), marks[place], f"model_{marks[place]}", f"response_{marks[place]}", model)
        if said in (*words, *WORDS[place]) or (value and value == row.get(side)):
            return place
    if value is None or said in TIES:
        raise NothingToLearn("winner")
    raise BadRow(f"winner is {value!r}, expected {names[0]}, {names[1]}, a, b or tie, or data.winner=COLUMN=VALUE")


def unsure(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """The numbers that say who has won, where they may mean either; empty where nothing is unsure.

    0 and 1 beside answers that are called a and b, or 1 and 2, may mean either (in SHP 1 means the first).
    """
    found = {str(row.get("winner")).strip().lower().removesuffix(".0") for row in rows} - set(TIES)
    if (
        found
        and found <= {"0", "1", "2", "true", "false"}
        and not found <= set(apart(columns["first"], columns["second"]))
    ):
        return ", ".join(sorted(found))
    return ""


def several(row: Row) -> Record:
    """A list of answers with a number each: records (UltraFeedback's ratings, Nectar's ranks), or beside a list.

    What is called a rank is the better the lower it is. Answers without a number are left out.
    """
    listed = row.get("answers")
    if isinstance(listed, str):
        listed = texts_of(listed)
    if not isinstance(listed, Sequence) or not listed:
        raise BadRow(f"answers is {row.get('answers')!r}, expected a list of answers")
    numbers, ranked = _numbers(row, len(listed)) if "ratings" in row else (None, False)
    prompt, rated = asked(row), []
    for at, answer in enumerate(listed):
        worth = numbers[at] if numbers else None
        if isinstance(answer, Mapping):
            name = next((name for name in _WORTH if answer.get(name) is not None), None)
            worth, ranked = (answer[name], name.startswith("rank")) if worth is None and name else (worth, ranked)
            said = next((answer[name] for name in _SAID if answer.get(name) is not None), answer)
        else:
            said = answer
        if not _unrated(worth):
            sign = -1 if ranked else 1  # of ranks the lowest is the best
            _, told = following(prompt, answered({"answers": said}, "answers"), "answers")
            rated.append(Rated(told, sign * number(worth, "a rating of answers")))
    return {"prompt": prompt, **best_and_worst(rated, "answers")}


def _unrated(worth: object) -> bool:
    """Whether a number is missing, as lists and tables write it."""
    return worth is None or str(worth).strip().lower() in ("", "nan", "n/a", "na", "none", "null")


def _numbers(row: Row, many: int) -> tuple[list[object], bool]:
    """A number for each of so many answers, and whether they are ranks."""
    found: object = row["ratings"]
    if isinstance(found, str):
        found = found.strip("[] ").split(",")
    if not isinstance(found, Sequence) or len(found) != many:
        raise BadRow(f"{many} answers and ratings {found!r}, expected a number for each")
    return list(found), str(row["columns"]["ratings"]).lower().startswith("rank")


def holds_rated(row: Row) -> bool:
    """Whether a row's answers are records with a number in each."""
    listed = row.get("answers")
    return isinstance(listed, Sequence) and any(isinstance(one, Mapping) and set(_WORTH) & set(one) for one in listed)


def holds_numbers(row: Row) -> bool:
    """Whether a row has as many numbers as answers."""
    answers, ratings = row.get("answers"), row.get("ratings")
    if isinstance(answers, str) and isinstance(ratings, str):
        return texts_of(answers) is not None and ratings.strip().startswith("[")
    if not isinstance(answers, Sequence) or not isinstance(ratings, Sequence) or isinstance(ratings, str):
        return False
    return 0 < len(answers) == len(ratings) and not any(isinstance(one, bool) for one in ratings)


def best_of_several(row: Row) -> list[Record]:
    """A list of answers and the place, from 0, of the best: the others lose to it (summaries with a choice)."""
    listed = row.get("answers")
    place = number(row.get("winner"), "winner")
    if not isinstance(listed, Sequence) or not 0 <= place < len(listed) or place != int(place):
        raise BadRow(f"winner is {row.get('winner')!r}, expected the place of one of the answers, from 0")
    said = []
    for answer in listed:
        text = (
            next((answer[n] for n in _SAID if answer.get(n) is not None), None)
            if isinstance(answer, Mapping)
            else answer
        )
        said.append(answered({"answers": text}, "answers"))
    chosen = said.pop(int(place))
    return [{"prompt": asked(row), "chosen": chosen, "rejected": rejected} for rejected in said]


def holds_place(row: Row) -> bool:
    """Whether a row has a list of answers and a place in it."""
    listed, place = row.get("answers"), row.get("winner")
    return isinstance(listed, list | tuple) and isinstance(place, int) and 0 <= place < len(listed)


def best_first(row: Row) -> list[Record]:
    """A list of answers, the best first: LLaMA-Factory's older pairs."""
    texts = texts_of(row.get("completion")) if holds_two(row) else None
    if texts is None:
        raise BadRow(f"completion is {row.get('completion')!r}, expected a list of answers, the best first")
    prompt, chosen, *others = asked(row), *([assistant(text)] for text in texts)
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for rejected in others]


def holds_two(row: Row) -> bool:
    """Whether a row's answer is a list of several texts; beside a list of questions they are turns, and not ranked."""
    value = row.get("completion")
    if not isinstance(row.get("prompt"), str) and len(texts_of(row.get("prompt")) or ()) > 1:
        return False
    return not isinstance(value, str) and len(texts_of(value) or ()) > 1
