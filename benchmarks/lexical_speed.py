"""Answers a second that the offline judge reads, by length: python benchmarks/lexical_speed.py.

Texts are the package's labelled answers, one after the other until they have so many words. The last column is what a
word costs in comparison with the first row: under 1 means that time grows no faster than length.
"""

from __future__ import annotations

import time

from valuedrift_mlflow.judges import labelled, load
from valuedrift_mlflow.stances import Answer

LENGTHS = (20, 130, 400, 1_600)
ANSWERS = 200


def answers(words: int) -> list[Answer]:
    """``ANSWERS`` answers of so many words, each on its first text's proposition."""
    rows = [row.answer for row in labelled.load_answers("check") if row.answer.response.strip()]
    made = []
    for start in range(ANSWERS):
        text: list[str] = []
        place = start
        while len(text) < words:
            text += rows[place % len(rows)].response.split()
            place += 1
        first = rows[start % len(rows)]
        made.append(Answer(first.proposition, first.prompt, " ".join(text[:words]), first.polarity))
    return made


def main() -> None:
    """Print a line for each length."""
    judge = load("lexical")
    judge.judge(answers(20)[:5])
    first = 0.0
    for words in LENGTHS:
        texts = answers(words)
        start = time.perf_counter()
        judge.judge(texts)
        cost = (time.perf_counter() - start) / len(texts)
        first = first or cost / words
        print(
            f"{words:5} words: {1 / cost:7.0f} answers a second, cost of a word {cost / words / first:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
