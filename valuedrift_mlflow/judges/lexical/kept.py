"""What was fitted, as plain arrays in one file: read in a blink where fitting takes seconds, and no code runs with it.

``python -m valuedrift_mlflow.judges.lexical.fitting`` renews the file after a change of the data or of what is read in
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FITTED_FILE = Path(__file__).with_name("fitted.npz")
_OWN = __name__.rpartition(".")[0]
_FITTED = ("coef_", "intercept_", "classes_")  # what a linear classifier of scikit-learn learns
_Part = TypeVar("_Part")


def load(part: _Part, name: str) -> _Part:
    """A part as it was fitted; ``part`` is one that is not."""
    fill(part, _file(), name)
    return part


@cache
def _file() -> Mapping[str, NDArray[Any]]:
    with np.load(FITTED_FILE, allow_pickle=False) as file:
        return {name: value.astype(float) if value.dtype == np.float32 else value for name, value in file.items()}


def arrays(part: object, name: str) -> dict[str, NDArray[Any]]:
    """All that a fitted part has learnt, by its place in it, such as ``reader.clauses.classifier.coef_``.

    Numbers have seven digits: half the bytes, and more than any verdict turns on.
    """
    learnt = {place: np.asarray(value) for place, value, _, _ in _learnt(part, name)}
    return {place: value.astype(np.float32) if value.dtype == float else value for place, value in learnt.items()}


def fill(part: object, given: Mapping[str, NDArray[Any]], name: str) -> None:
    """Give a part that is not fitted what another has learnt: the reverse of ``arrays``.

    Raises:
        KeyError: what is given lacks something of the part.
    """
    for place, _, owner, attribute in list(_learnt(part, name)):
        value = given[place]
        before = getattr(owner, attribute, None)
        if attribute == "vocabulary_" or isinstance(before, dict):
            setattr(owner, attribute, {str(key): number for number, key in enumerate(value)})
        else:
            setattr(owner, attribute, frozenset(map(str, value)) if isinstance(before, frozenset) else value)


def _learnt(part: object, name: str) -> Iterator[tuple[str, object, object, str]]:
    """Place, value, and whose attribute it is; a part that two others share has one place."""
    seen: set[int] = set()

    def walk(owner: object, place: str) -> Iterator[tuple[str, object, object, str]]:
        for attribute, value in vars(owner).items():
            at = f"{place}.{attribute.lstrip('_')}"
            kind = type(value)
            if kind.__module__.startswith(_OWN):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield from walk(value, at)
            elif kind.__name__ == "LogisticRegression":
                for fitted in _FITTED:
                    yield f"{at}.{fitted}", getattr(value, fitted, None), value, fitted
            elif kind.__name__.endswith("Vectorizer"):
                yield f"{at}.vocabulary_", _keys(getattr(value, "vocabulary_", {})), value, "vocabulary_"
                if kind.__name__ == "TfidfVectorizer":  # after its words: their number is checked
                    yield (
                        f"{at}.idf_",
                        getattr(value, "idf_", None) if hasattr(value, "vocabulary_") else None,
                        value,
                        "idf_",
                    )
            elif isinstance(value, dict):
                yield at, _keys(value), owner, attribute
            else:
                yield at, sorted(value) if isinstance(value, frozenset) else value, owner, attribute

    return walk(part, name)


def _keys(numbered: Mapping[str, int]) -> list[str]:
    return sorted(numbered, key=lambda key: numbered[key])
