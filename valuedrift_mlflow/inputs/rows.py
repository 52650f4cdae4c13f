"""Rows of data as json, csv and parquet hold them, and how far two of their texts are the same.

Only the format of the data knows which columns there are and of which types, and its reader checks what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # that is read
Record = dict[str, Any]  # that is made, or that a library wants as a dictionary


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many of the first entries of two sequences are the same.

    >>> alike("abcd", "abxd"), alike([1], [1, 2])
    (2, 1)
    """
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))
