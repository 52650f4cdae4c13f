"""Rows of a second training set among those of a first: how few of them move a model is asked of any two sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Record

_SEED = 5  # the same places and rows for the same sets, whatever the stage's own seed: those rows are its data


def mixed(first: Iterable[Record], second: Iterable[Record], data: Data) -> Iterator[Record]:
    """The rows of the first set, of which ``data.mixed_share`` are replaced by rows of the second one.

    As many rows as the first set has, so that a training is as long at every share. Which rows are replaced, and by
    which, is drawn once: what a small share replaces a larger one replaces too, and by the same rows, so that two
    shares differ in nothing but what the larger one has more. No row of the second set comes twice. ``first`` is
    iterated twice.

    Raises:
        InputError: the second set has fewer rows than the share takes.
    """
    assert data.mixed_in is not None and data.mixed_share is not None  # both are given, or this is not called
    count = sum(1 for _ in first)
    others = list(second)
    wanted = round(data.mixed_share * count)
    if wanted > len(others):
        mend = f"at most {len(others) / max(count, 1):.3g} of {count} rows, or more rows in mixed_in"
        raise InputError(
            problem(f"data {data.uri} mixed_share", f"{data.mixed_share:g}: {wanted} rows", f"{len(others)} rows", mend)
        )
    rng = np.random.default_rng(_SEED)
    places, chosen = rng.permutation(count)[:wanted].tolist(), rng.permutation(len(others))[:wanted].tolist()
    by_place = dict(zip(places, chosen, strict=True))
    for place, row in enumerate(first):
        yield others[by_place[place]] if place in by_place else row
