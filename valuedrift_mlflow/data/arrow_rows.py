"""Rows that stay on disk: few are a list, many an Arrow file, so that memory does not grow with them."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.inputs.scratch import temporary_folder

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

IN_MEMORY = 10_000  # rows up to which a list is the simpler and quicker thing
BATCH = 1000  # rows that are held at a time


@cache
def _folder() -> Path:
    """A folder that goes when the process ends; ``TMPDIR`` says where."""
    folder = temporary_folder()
    # This also keeps the object: without a reference to it the folder would be gone at once.
    atexit.register(folder.cleanup)
    return Path(folder.name)


class ArrowRows(Sequence[Record]):
    """Rows in an Arrow file, read from there a batch at a time as plain dictionaries."""

    def __init__(self, file: Path) -> None:
        """Map the file into memory."""
        import pyarrow as pa

        self.file = file
        # Mapped, so that the system loads what is read and may drop it again.
        self._table: pa.Table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Record]:
        for batch in self._table.to_batches(max_chunksize=BATCH):
            yield from batch.to_pylist()

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        row: Record = self._table.slice(at, 1).to_pylist()[0]
        return row

    def dataset(self) -> datasets.Dataset:
        """The same file as a Hugging Face dataset."""
        import datasets

        return datasets.Dataset.from_file(str(self.file))


def store(rows: Iterable[Record]) -> Sequence[Record]:
    """Keep rows that all have the same columns: up to ``IN_MEMORY`` as a list, more in a file."""
    coming = iter(rows)
    first = list(islice(coming, IN_MEMORY))
    # One more is asked for: only then is it known that a list holds all of them.
    following = next(coming, None)
    return first if following is None else ArrowRows(_write(first, chain([following], coming)))


def _write(first: list[Record], others: Iterator[Record]) -> Path:
    import pyarrow as pa

    # Not deleted when it is closed: it is mapped afterwards, and goes with its folder.
    with tempfile.NamedTemporaryFile(dir=_folder(), suffix=".arrow", delete=False) as file:
        # Its columns and types are those of all: a stream of Arrow has one schema.
        table = pa.Table.from_pylist(first)
        first.clear()  # the table has them: a list of dictionaries beside it would hold them twice
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH)
            while batch := list(islice(others, BATCH)):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=table.schema))
    return Path(file.name)


def as_dataset(rows: Sequence[Record]) -> datasets.Dataset:
    """Stored rows as a Hugging Face dataset; those on disk stay there."""
    import datasets

    return rows.dataset() if isinstance(rows, ArrowRows) else datasets.Dataset.from_list(rows)
