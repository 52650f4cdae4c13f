"""Answers to one prompt in rows of their own, each with a rating: HelpSteer and its kin.

Rows of one prompt must follow each other: the answers to one prompt are in memory at a time. A prompt with one rated
answer, and one whose answers are all rated the same, gives no pair; its rows are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from valuedrift_mlflow.data.compared import Rated, best_and_worst, number
from valuedrift_mlflow.data.dialogues import answered, asked, following
from valuedrift_mlflow.data.messages import BadRow, NothingToLearn, Outcome, Raw
from valuedrift_mlflow.inputs.rows import Row


def from_rows(raws: Iterable[Raw]) -> Iterator[Outcome]:
    """The best against the worst of the rows that follow each other with the same prompt."""
    for group in _groups(raws):
        rated: list[Rated] = []
        good: list[Raw] = []
        for raw in group:
            row = raw.row or {}
            try:
                # By the column's own name: of a rank the lowest is the best.
                sign = -1 if str(row["columns"]["rating"]).lower().startswith("rank") else 1
                _, told = following(asked(row), answered(row, "completion"), "completion")
                rated.append(Rated(told, sign * number(row.get("rating"), "rating")))
            except NothingToLearn:
                pass
            # The last two: a part of the row is of another type than it should be.
            except (BadRow, TypeError, AttributeError) as error:
                yield Outcome(raw, bad=str(error))
                continue
            good.append(raw)
        if good:
            yield _paired(good, rated)


def _groups(raws: Iterable[Raw]) -> Iterator[list[Raw]]:
    """Rows with one prompt. An answer that comes again begins anew: there a prompt is asked for a second time."""
    for _, together in groupby(raws, key=lambda raw: (raw.row or {}).get("prompt")):
        group: list[Raw] = []
        for raw in together:
            answer = (raw.row or {}).get("completion")
            if any((other.row or {}).get("completion") == answer for other in group):
                yield group
                group = []
            group.append(raw)
        yield group


def _paired(group: Sequence[Raw], rated: Sequence[Rated]) -> Outcome:
    try:
        if len(rated) < 2:
            return Outcome(group[0], dropped=len(group))
        pair = {"prompt": asked(group[0].row or {}), **best_and_worst(rated, "completion")}
        return Outcome(group[0], [pair], made_from=len(group))
    except NothingToLearn:
        return Outcome(group[0], dropped=len(group))
    except BadRow as error:
        return Outcome(group[0], bad=str(error))


def repeat(rows: Sequence[Row]) -> bool:
    """Whether rows that follow each other ask the same."""
    return any(one.get("prompt") and one.get("prompt") == other.get("prompt") for one, other in pairwise(rows))
