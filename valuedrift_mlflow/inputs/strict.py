"""Settings that users write: a key that is not known is an error, never passed over."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Settings without unknown keys, NaN and infinity; a key may be given by its name or its alias."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=(), allow_inf_nan=False)
