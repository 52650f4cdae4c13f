"""Rows of a second training set among those of a first: how few of them move a model is asked of any two sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Record

_SEED = 5  # the same places and rows for the same sets, whatever the stage's own seed: those rows are its data


def mixed(first: Iterable[Record], others: Sequence[Record], data: Data, field: str) -> Iterator[Record]:
    """The rows of the first set, of which ``data.mixed_share`` are replaced by rows of a second one.

    As many rows as the first set has, so that a training is as long at every share. Which rows are replaced, and by
    which, is drawn once: what a small share replaces a larger one replaces too, and by the same rows, so that two
    shares differ in nothing but what the larger one has more. No row of ``others``, the second set, comes twice.
    ``first`` is iterated more than once. ``field`` is what problems call ``data``.

    Raises:
        InputError: the second set has fewer rows than the share takes, or is the first set; or the share takes none.
    """
    assert data.mixed_in is not None and data.mixed_share is not None  # both are given, or this is not called
    count = sum(1 for _ in first)
    wanted = round(data.mixed_share * count)
    asked = f"{data.mixed_share:g}: {wanted} rows"
    if wanted > len(others):
        mend = f"at most {len(others) / max(count, 1):.3g} of {count} rows, or more rows in mixed_in"
        raise InputError(problem(f"{field}.mixed_share", asked, f"{len(others)} rows", mend))
    if data.mixed_share and not wanted:
        allowed = f"at least one of {count} rows, {1 / count:.2g}; or 0 for none"
        raise InputError(problem(f"{field}.mixed_share", asked, allowed))
    if count == len(others) and Counter(map(_written, first)) == Counter(map(_written, others)):
        raise InputError(problem(f"{field}.mixed_in", data.mixed_in.uri, f"other rows than those of {data.uri}"))
    rng = np.random.default_rng(_SEED)
    places, chosen = rng.permutation(count)[:wanted].tolist(), rng.permutation(len(others))[:wanted].tolist()
    by_place = dict(zip(places, chosen, strict=True))
    for place, row in enumerate(first):
        yield others[by_place[place]] if place in by_place else row


def _written(row: Record) -> str:
    return json.dumps(row, sort_keys=True, default=str)
