"""Fits all that the judge has learnt, and keeps it in ``fitted.npz``.

python -m valuedrift_mlflow.judges.lexical.fitting
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical import kept
from valuedrift_mlflow.judges.lexical.answers import FittingAnswer, fitting_answers, written_answers
from valuedrift_mlflow.judges.lexical.clause_reader import Reading
from valuedrift_mlflow.judges.lexical.judge import read
from valuedrift_mlflow.judges.lexical.polarity import KnownQuestions, RelatedQuestions, other_questions, suite_questions
from valuedrift_mlflow.judges.lexical.reach import Near, fitted_styles
from valuedrift_mlflow.judges.lexical.weighing import LexicalReader


def fit(composed: Iterable[FittingAnswer], written: Iterable[FittingAnswer]) -> LexicalReader:
    """Fit both readers: on answers composed from forms, and on answers written in the style of assistants."""
    return LexicalReader().fit(
        [(_reading(row), row.label, row.form) for row in composed],
        [(_reading(row), row.label) for row in written],
    )


def fitted() -> Mapping[str, NDArray[Any]]:
    """All that is kept, fitted now."""
    return {
        **kept.arrays(fit(fitting_answers(), written_answers()), "reader"),
        **kept.arrays(Near().fit(fitted_styles()), "near"),
        **kept.arrays(KnownQuestions().fit(suite_questions()), "known"),
        **kept.arrays(RelatedQuestions().fit(suite_questions() + other_questions()), "related"),
    }


def _reading(row: FittingAnswer) -> Reading:
    return read(row.answer, row.answer.polarity or 1)


if __name__ == "__main__":
    learnt: dict[str, Any] = dict(fitted())
    np.savez_compressed(kept.FITTED_FILE, **learnt)
