"""Where a training set is and how to read it, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.strict import Strict

# What `columns` can name: what the formats read.
NAMES = (
    *("prompt", "chosen", "rejected", "completion", "label", "messages", "system", "history", "text"),
    *("first", "second", "winner", "first_score", "second_score", "answers", "ratings", "rating"),
    *("topic", "proposition_id", "stance", "chosen_stance", "rejected_stance"),
)
Kind = Literal["sft", "pairs", "labelled", "prompts"]  # what the rows of a training set hold
DataFiles = str | list[str] | dict[str, str | list[str]] | None  # by split, or those of ``train``
Turns = Literal["all", "last"]  # which answers of a dialogue are learnt from


def _uri_alone(value: object) -> object:
    return {"uri": value} if isinstance(value, str) else value


class Data(Strict):
    """A training set: a URI, and how to read it where its columns do not tell."""

    uri: str = Field(
        validation_alias=AliasChoices("uri", "path"),
        description="`embedded:...`, a file, a pattern of files (`part-*.jsonl`), a folder, or a hub id; also `path`",
    )
    format: str = Field("auto", description="format of the rows; `auto` recognises it from the columns")
    split: str = Field("train", description="split of a folder or a hub dataset")
    subset: str | None = Field(
        None,
        validation_alias=AliasChoices("subset", "name"),
        description="subset (configuration) of a hub dataset that has several; also `name`",
    )
    revision: str | None = Field(None, description="revision (branch, tag or commit) of a hub dataset")
    data_files: DataFiles = Field(
        None,
        description="files of a folder or of a hub dataset: a pattern (`a/*.parquet`), a list of them, or "
        "`{train: ..., test: ...}`, as `load_dataset` takes them",
    )
    data_dir: str | None = Field(None, description="folder within the folder or the hub dataset")
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
    mixed_in: Annotated[Data | None, BeforeValidator(_uri_alone)] = Field(
        None, description="a second training set, as a URI or with keys of its own, of which a share of the rows comes"
    )
    mixed_share: float | None = Field(
        None, ge=0, le=1, description="share of the rows that is replaced by rows of `mixed_in`"
    )

    @field_validator("data_files")
    @classmethod
    def _names_files(cls, given: DataFiles) -> DataFiles:
        named = given.values() if isinstance(given, dict) else [] if given is None else [given]
        patterns = [text for one in named for text in ([one] if isinstance(one, str) else one or [""])]
        if given is not None and not (patterns and all(text.strip() for text in patterns)):
            allowed = "a pattern, a list of them, or one or several for each split: {train: a/*.parquet}"
            raise InputError(problem("data.data_files", given, allowed))
        return given

    @field_validator("columns")
    @classmethod
    def _names_what_formats_read(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in columns if name not in NAMES]
        if unknown:
            raise InputError([problem("data.columns", name, ", ".join(NAMES)) for name in unknown])
        return columns

    @model_validator(mode="after")
    def _mixes_by_a_share(self) -> Data:
        wrong = []
        if (self.mixed_in is None) != (self.mixed_share is None):
            given = "mixed_in" if self.mixed_share is None else "mixed_share"
            found = f"{given} alone"
            wrong.append(problem("data.mixed_in, data.mixed_share", found, "both, such as a file and 0.02"))
        if self.mixed_in is not None and self.mixed_in.mixed_in is not None:
            wrong.append(problem("data.mixed_in.mixed_in", self.mixed_in.mixed_in.uri, "none: two sets are mixed"))
        if wrong:
            raise InputError(wrong)
        return self
