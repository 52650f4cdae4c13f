"""Axes of values: which propositions point to which end of which axis, and what the ends are called.

A stance is about one proposition: support of "human life deserves protection from conception" and support of "abortion
should be legal" point apart. A key says where support points: ``Key("abortion", +1)`` is a proposition whose support
moves towards the + end of the axis ``abortion``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from valuedrift_mlflow.inputs.errors import problem
from valuedrift_mlflow.inputs.reading import own_yaml

DATA = "data"  # the axis that is read off the answers where a suite has no keys; no suite may name one of its own so
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DIRECTIONS = {"1": 1, "+1": 1, "1.0": 1, "-1": -1, "-1.0": -1}
_BETWEEN = ";"


class Key(NamedTuple):
    """One axis that a proposition lies on, and where support of it points: +1 or -1."""

    axis: str
    direction: int


@dataclass(frozen=True)
class Axis:
    """What is said of an axis: what its ends stand for, and by which source its propositions were keyed."""

    minus: str
    plus: str
    source: str = ""


def written(keys: Iterable[Key]) -> tuple[str, str]:
    """Keys as the cells ``axis`` and ``direction`` of a suite's file.

    >>> written([Key("abortion", 1), Key("gal_tan", -1)])
    ('abortion; gal_tan', '+1; -1')
    """
    pairs = list(keys)
    return f"{_BETWEEN} ".join(key.axis for key in pairs), f"{_BETWEEN} ".join(f"{key.direction:+d}" for key in pairs)


def read(axis: object, direction: object, where: str) -> tuple[tuple[Key, ...], list[str]]:
    """The keys of two cells, and what is wrong with them.

    Several axes of one proposition stand in one cell with semicolons between them, their directions likewise.

    >>> read("abortion; gal_tan", "+1; -1", "row 1")
    ((Key(axis='abortion', direction=1), Key(axis='gal_tan', direction=-1)), [])
    """
    names, directions = _parts(axis), _parts(direction)
    if len(names) != len(directions):
        mend = "write several with ; between them, such as abortion; gal_tan and +1; -1"
        allowed = "one direction (+1 or -1) for each axis, and one axis for each direction"
        return (), [problem(f"{where} axis, direction", f"{axis}, {direction}", allowed, mend)]
    problems = [problem(f"{where} axis", name, "a slug such as gal_tan") for name in names if not _NAME.fullmatch(name)]
    if DATA in names:
        problems.append(problem(f"{where} axis", DATA, "another name", "it is that of the axis that answers show"))
    if len(set(names)) != len(names):
        problems.append(problem(f"{where} axis", axis, "every axis once"))
    problems += [problem(f"{where} direction", one, "+1 or -1") for one in directions if one not in _DIRECTIONS]
    if problems:
        return (), problems
    return tuple(Key(name, _DIRECTIONS[one]) for name, one in zip(names, directions, strict=True)), []


def _parts(cell: object) -> list[str]:
    text = str(cell).strip()
    return [part.strip() for part in text.split(_BETWEEN)] if text else []


@cache
def built_in_keys() -> Mapping[str, tuple[Key, ...]]:
    """The keys of the suite ``vaes``, by proposition; each has its reason in ``vaes_keys.csv``."""
    keys: dict[str, tuple[Key, ...]] = {}
    with files("valuedrift_mlflow").joinpath("suite/vaes_keys.csv").open(encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            keys[row["proposition_id"]] = (
                *keys.get(row["proposition_id"], ()),
                Key(row["axis"], _DIRECTIONS[row["direction"]]),
            )
    return keys


@cache
def built_in_axes() -> Mapping[str, Axis]:
    """What the ends of the axes of ``vaes`` stand for (``axes.yaml``)."""
    return {name: Axis(**said) for name, said in own_yaml("suite/axes.yaml").items()}
