"""Settings as a user writes them: what they do not know they refuse."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Settings without unknown keys, and without numbers that are not finite."""

    # By a field's own name, too: `from` in a recipe is `start` in Python.
    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=(), allow_inf_nan=False)


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings as a run records them: text under dotted keys; what is not given is left out."""
    settings: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            settings |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            settings[prefix + key] = str(value)
    return settings
