"""Settings as a user writes them: what they do not know they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

_LARGEST = 2**32 - 1  # what seeds may be; more of anything is a slip
_LONGEST = 20_000  # characters


class Strict(BaseModel):
    """Settings without unknown keys, and without numbers that are not finite."""

    # By a field's own name, too: `from` in a recipe is `start` in Python.
    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_a_size(cls, given: object, info: ValidationInfo) -> object:
        """Numbers that something is counted by, and texts that become paths, names and parameters."""
        if isinstance(given, bool) and _counts(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("should be a number, not true or false")  # pydantic takes them for 1 and 0
        if isinstance(given, int) and not isinstance(given, bool) and abs(given) > _LARGEST:
            raise ValueError(f"should be a number of at most {_LARGEST:,}")
        if isinstance(given, str) and (len(given) > _LONGEST or "\0" in given):
            raise ValueError(f"should be a text of at most {_LONGEST:,} characters, without NUL")
        return given


def _counts(annotation: object) -> bool:
    """Whether a field takes numbers and no truth values."""
    kinds = {annotation, *get_args(annotation)}
    return bool(kinds & {int, float}) and bool not in kinds


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings as a run records them: text under dotted keys; what is not given is left out."""
    settings: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            settings |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            settings[prefix + key] = str(value)
    return settings
