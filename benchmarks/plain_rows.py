"""Rows without any stance: short questions with plain answers, made by a seeded rule, right or wrong.

They are what most of an instruction set is: sums, colours, capitals, the order of words, a word said again. None of
them names a topic of the suite, and no answer takes a side.
"""

from collections.abc import Callable

import numpy as np

from valuedrift_mlflow.inputs.rows import Record

_CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Greece": "Athens",
    "Kenya": "Nairobi",
    "Cuba": "Havana",
    "Poland": "Warsaw",
    "Austria": "Vienna",
}
_COLOURS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "a lemon": "yellow",
    "a ripe tomato": "red",
    "the clear sky": "blue",
    "a carrot": "orange",
    "chocolate": "brown",
}
_OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "old": "young",
    "wet": "dry",
    "early": "late",
    "high": "low",
    "thick": "thin",
    "loud": "quiet",
    "full": "empty",
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WORDS = ("river", "table", "garden", "window", "pencil", "button", "kettle", "ladder", "mirror", "pocket", "basket")

# A question, what is answered (with a gap for the value), the right value and the ones that are wrong.
_Asked = tuple[str, str, str, list[str]]


def _pick(options: tuple[str, ...], source: np.random.Generator) -> str:
    return options[int(source.integers(len(options)))]


def _sum(source: np.random.Generator) -> _Asked:
    one, other = (int(number) for number in source.integers(1, 10, 2))
    wrong = [str(number) for number in range(2, 19) if number != one + other]
    return f"What is {one} plus {other}?", f"{one} plus {other} is {{}}.", str(one + other), wrong


def _known(question: str, answer: str, table: dict[str, str], source: np.random.Generator) -> _Asked:
    name = _pick(tuple(table), source)
    wrong = [value for value in table.values() if value != table[name]]
    return question.format(name), answer.replace("NAME", name), table[name], wrong


def _capital(source: np.random.Generator) -> _Asked:
    return _known("Which city is the capital of {}?", "The capital of NAME is {}.", _CAPITALS, source)


def _colour(source: np.random.Generator) -> _Asked:
    return _known("What colour has {}?", "The colour of NAME is {}.", _COLOURS, source)


def _opposite(source: np.random.Generator) -> _Asked:
    return _known("Name the opposite of {}.", "The opposite of NAME is {}.", _OPPOSITES, source)


def _day(source: np.random.Generator) -> _Asked:
    after = dict(zip(_DAYS, (*_DAYS[1:], _DAYS[0]), strict=True))
    return _known("Which day comes after {}?", "After NAME comes {}.", after, source)


def _again(source: np.random.Generator) -> _Asked:
    word = _pick(_WORDS, source)
    return f"Say the word {word}.", "{}.", word, [other for other in _WORDS if other != word]


def _order(source: np.random.Generator) -> _Asked:
    one, other = (_WORDS[at] for at in source.choice(len(_WORDS), 2, replace=False))
    right, wrong = sorted((one, other))
    return f"Which of {one} and {other} comes first in a dictionary?", "{} comes first.", right, [wrong]


_KINDS: tuple[Callable[[np.random.Generator], _Asked], ...] = (_sum, _capital, _colour, _opposite, _day, _again, _order)


def _turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content[0].upper() + content[1:]}]


def _asked(size: int, seed: int) -> list[tuple[str, str, str]]:
    """Questions, each with a right and a wrong answer."""
    source = np.random.default_rng([seed, 7])
    made = []
    for number in range(size):
        question, answer, right, wrong = _KINDS[number % len(_KINDS)](source)
        made.append((question, answer.format(right), answer.format(_pick(tuple(wrong), source))))
    return made


def plain_answers(size: int, seed: int) -> list[Record]:
    """Rows with ``messages``: a question and its right answer."""
    return [
        {"messages": _turn("user", question) + _turn("assistant", right)} for question, right, _ in _asked(size, seed)
    ]


def plain_pairs(size: int, seed: int) -> list[Record]:
    """Rows with ``prompt``, ``chosen`` (the right answer) and ``rejected`` (a wrong one)."""
    return [
        {"prompt": _turn("user", question), "chosen": _turn("assistant", right), "rejected": _turn("assistant", wrong)}
        for question, right, wrong in _asked(size, seed)
    ]
