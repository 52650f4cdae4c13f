"""How a judge errs on labelled texts: counts of true stance by verdict."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.stances import STANCES, Label, RefusalRule

NO_STANCE = len(STANCES)  # the column of verdicts of no stance


def column(label: Label, rule: RefusalRule = "neutral") -> int:
    """The place of a label among support, neutral, oppose and no stance; a refusal's by the rule.

    >>> column(Label.OPPOSE), column(Label.REFUSAL), column(Label.REFUSAL, "exclude"), column(Label.UNSCORED)
    (2, 1, 3, 3)
    """
    if label is Label.REFUSAL and rule == "neutral":
        label = Label.NEUTRAL
    stances = [stance.value for stance in STANCES]
    return stances.index(label.value) if label.value in stances else NO_STANCE


def confusion(pairs: Iterable[tuple[Label, Label]], rule: RefusalRule = "neutral") -> NDArray[np.int64]:
    """(3, 4) counts of true stance x verdict, the fourth column is no stance.

    A true label of no stance says nothing of how stances are read, and is passed over.
    """
    counts = np.zeros((len(STANCES), NO_STANCE + 1), dtype=np.int64)
    for true, verdict in pairs:
        row = column(true, rule)
        if row != NO_STANCE:
            counts[row, column(verdict, rule)] += 1
    return counts
