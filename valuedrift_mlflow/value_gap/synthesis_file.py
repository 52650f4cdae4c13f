"""The dataset that a synthesis writes: a parquet file with its own account of itself, and a dataset card beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.reading import json_of, output_path
from valuedrift_mlflow.inputs.rows import Record, Row

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = "valuedrift.synthesis"
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class Places:
    """Where a synthesis writes.

    ``output`` ending in ``.parquet`` is the file itself, and any other one a folder that holds ``train.parquet``. The
    card is the ``README.md`` beside it, or ``NAME.README.md`` where that is a README of something else. The judged
    responses are in ``NAME.responses.jsonl``.
    """

    file: Path

    @classmethod
    def of(cls, output: str) -> Places:
        """The places that an output names.

        Raises:
            InputError: it names another kind of file, a file where a folder is needed, or a dataset of other origin.
        """
        path = output_path(output)
        if not output.strip() or (path.suffix and path.suffix != _SUFFIX and not path.is_dir()):
            raise InputError(problem("output", output, f"a file NAME{_SUFFIX}, or a folder"))
        file = path if path.suffix == _SUFFIX and not path.is_dir() else path / f"train{_SUFFIX}"
        blocked = next((parent for parent in file.parents if parent.exists() and not parent.is_dir()), None)
        if blocked is not None or file.is_dir():
            raise InputError(
                problem("output", output, f"a file NAME{_SUFFIX}, or a folder", f"{blocked or file} is none")
            )
        if file.is_file() and not _is_ours(file):
            mend = "name another output: this file is not one that a synthesis has written"
            raise InputError(problem("output", output, "a new file, or a synthesis to go on with", mend))
        return cls(file)

    @property
    def responses(self) -> Path:
        """The judged responses."""
        return self.file.with_suffix(".responses.jsonl")

    @property
    def card(self) -> Path:
        """The dataset card."""
        readme = self.file.with_name("README.md")
        # A README of somebody's own is never written over.
        if not readme.exists() or _mark(self.file) in readme.read_text(encoding="utf-8", errors="replace"):
            return readme
        return self.file.with_name(f"{self.file.stem}.README.md")


def _mark(file: Path) -> str:
    """The line by which a card is known to be that of a file."""
    return f"<!-- dataset card of {file.name}, written by valuedrift-mlflow synthesize -->"


def _is_ours(file: Path) -> bool:
    try:
        metadata(file)
    except InputError:
        return False
    return True


def metadata(file: Path) -> Record:
    """What a synthesized parquet file says of itself: model, judge, requested and measured gap, texts, versions.

    Raises:
        InputError: it is no parquet file, or not a synthesized one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = (pq.read_schema(file).metadata or {}).get(METADATA_KEY.encode())
    except (OSError, pa.ArrowException) as error:
        allowed = "a parquet file that synthesize has written"
        raise InputError(problem("data", str(file), allowed, one_line(error, 200))) from None
    try:
        loaded = json_of(stored or b"")
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise InputError(problem("data", str(file), "a parquet file that synthesize has written"))
    return loaded


def write(places: Places, rows: Sequence[Row], about: Row) -> None:
    """Write the parquet file, all of it or nothing, with ``about`` in its schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With a schema of its own: by itself Arrow would take the types from values, and empty lists have none.
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=_schema(rows[0]))
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    table = table.replace_schema_metadata({METADATA_KEY: text})
    places.file.parent.mkdir(parents=True, exist_ok=True)
    half_way = places.file.with_suffix(".half-way")
    pq.write_table(table, half_way)
    # In one step: whoever reads the file sees the old one or the new one whole.
    os.replace(half_way, places.file)


def _schema(row: Row) -> pa.Schema:
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = {list: messages, str: pa.string(), int: pa.int64()}
    return pa.schema([(column, kinds[type(value)]) for column, value in row.items()])


def write_card(places: Places, rows: Sequence[Row], about: Row) -> str:
    """Write the dataset card and return its text; the licence is a field of its front matter."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("valuedrift_mlflow.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        # A figure that is missing is an error, not an empty place in the card.
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["cell"] = lambda text: one_line(text, most=None).replace("|", "\\|")
    template = environment.get_template("dataset_card.md.j2")
    text = template.render(about=about, rows=rows, file=places.file.name, mark=_mark(places.file))
    places.card.write_text(text, encoding="utf-8")
    return text
