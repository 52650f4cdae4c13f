"""Where a training set is and how to read it, as a recipe says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.strict import Strict

# What `columns` can name: what the formats read.
NAMES = (
    *("prompt", "chosen", "rejected", "completion", "label", "messages", "system", "history"),
    *("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance"),
)
Kind = Literal["sft", "pairs", "labelled", "prompts"]  # what the rows of a training set hold
Turns = Literal["all", "last"]  # which answers of a dialogue are learnt from


class Data(Strict):
    """A training set: a URI, and how to read it where its columns do not tell."""

    uri: str = Field(description="`embedded:...`, a file or folder, or a hub id")
    format: str = Field("auto", description="format of the rows; `auto` recognises it from the columns")
    split: str = Field("train", description="split of a folder or a hub dataset")
    subset: str | None = Field(None, description="subset (configuration) of a hub dataset that has several")
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="`error` ends with all rows that cannot be read; `skip` leaves them out and counts them"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="where the rows hold what a format needs, as `{prompt: question, chosen: answers.0.text}`: dotted "
        "paths go into records, lists and texts that are JSON",
    )
    rows: int | None = Field(None, ge=1, description="rows of a hub dataset, for dry runs, which do not read it")

    @field_validator("columns")
    @classmethod
    def _names_what_formats_read(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in columns if name not in NAMES]
        if unknown:
            raise InputError([problem("data.columns", name, ", ".join(NAMES)) for name in unknown])
        return columns
