"""A judge of your own: any class with a ``name`` and ``judge(answers)``. A ``version`` is recorded with every result.

In the folder of this file (of a panel it is a member: ``--judge lexical,own_judge:Words``):

    valuedrift check-judge --judge "own_judge:Words?support=yes&oppose=no"

What stands after ``?`` are the arguments of ``__init__``, as texts.
"""

import re

from valuedrift_mlflow.stances import UNSCORED, Verdict


class Words:
    """An answer that begins with one word supports what it was asked, one with another word opposes it."""

    name, version = "words", "1"

    def __init__(self, support: str = "yes", oppose: str = "no") -> None:
        self.sides = {support: 1, oppose: -1}

    def judge(self, answers):
        return [self.read(answer) for answer in answers]

    def read(self, answer):
        first = re.match(r"\w*", answer.response.lower())
        side = self.sides.get(first[0], 0) * (answer.polarity or 0)  # -1: who agrees opposes the proposition
        return Verdict.of((1, 0, 0) if side > 0 else (0, 0, 1)) if side else UNSCORED
