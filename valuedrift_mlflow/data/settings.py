"""Where a training set is and how to read it, as a recipe says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.strict import Strict

# What `columns` can name: what the formats read.
NAMES = (
    *("prompt", "chosen", "rejected", "completion", "label", "messages", "system", "history", "text"),
    *("first", "second", "winner", "first_score", "second_score", "answers", "ratings", "rating"),
    *("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance"),
)
Kind = Literal["sft", "pairs", "labelled", "prompts"]  # what the rows of a training set hold
Turns = Literal["all", "last"]  # which answers of a dialogue are learnt from


class Data(Strict):
    """A training set: a URI, and how to read it where its columns do not tell."""

    uri: str = Field(description="`embedded:...`, a file, a pattern of files (`part-*.jsonl`), a folder, or a hub id")
    format: str = Field("auto", description="format of the rows; `auto` recognises it from the columns")
    split: str = Field("train", description="split of a folder or a hub dataset")
    subset: str | None = Field(None, description="subset (configuration) of a hub dataset that has several")
    revision: str | None = Field(None, description="revision (branch, tag or commit) of a hub dataset")
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="`error` ends with all rows that cannot be read; `skip` leaves them out and counts them"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="where the rows hold what a format needs, as `{prompt: question, chosen: answers.0.text}`: dotted "
        "paths go into records, lists and texts that are JSON",
    )
    winner: str | None = Field(
        None,
        description="column that says which of two answers is better, as `COLUMN`, or `COLUMN=VALUE` where this value "
        "says that the first one is",
    )
    min_margin: float = Field(
        0, ge=0, description="of rated answers: pairs whose ratings are less apart are dropped and counted"
    )
    rows: int | None = Field(None, ge=1, description="rows of a hub dataset, for dry runs, which do not read it")

    @field_validator("columns")
    @classmethod
    def _names_what_formats_read(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in columns if name not in NAMES]
        if unknown:
            raise InputError([problem("data.columns", name, ", ".join(NAMES)) for name in unknown])
        return columns
