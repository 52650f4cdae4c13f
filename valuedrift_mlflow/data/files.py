"""What one file holds, row by row: json, csv, parquet and arrow files, packed or not.

They are read a piece at a time, so that memory does not grow with the rows; a json file that is one list is read whole.
A line or a csv record that cannot be read is a row with a problem, not the end of its file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple

from valuedrift_mlflow.data.library import datasets_library
from valuedrift_mlflow.data.messages import Raw
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import ROW, opened, read_bytes
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import delimiter


class Line(NamedTuple):
    """A line of a jsonl file that nobody has parsed yet, its number among those that are not empty."""

    number: int
    text: bytes
    file: str = ""  # of a folder with several


Unread = Raw | Line
_TYPES = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"},
    **{".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"},
}
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_LFS = b"version https://git-lfs.github.com/spec/"
_BATCH = 1000
_BUFFER = 1 << 20
_LOOKED_AT = 1 << 17  # bytes whose encoding tells that of the file
# csv's own limit, 131,072 characters, is less than some dialogues have; this is the most that a C long holds anywhere.
_LONGEST_CELL = 2**31 - 1


def check_file(path: Path, *, strict: bool) -> None:
    """Refuse a file that no reader takes; ``strict`` also text in another encoding, whose rows would all be bad.

    Raises:
        InputError: by its name or its first bytes it is nothing that can be read.
    """
    if not type_of(path):
        allowed = "a jsonl, ndjson, json, csv, tsv, parquet or arrow file (packed as .gz, .bz2, .xz or .zst too)"
        raise InputError(problem("data", str(path), allowed))
    _check_bytes(path, strict)


def _check_bytes(path: Path, strict: bool) -> None:
    """Refuse by its first bytes what no reader would name."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        found = "a pointer of git-lfs, not the file itself"
        raise InputError(problem(f"data {path}", found, "the file", "fetch it with git lfs pull"))
    if start.startswith(b"PK\x03\x04"):
        raise InputError(problem(f"data {path}", "a zip archive", "the file in it", f"unpack it: unzip {path.name}"))
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(problem(f"data {path}", "text in UTF-16", "text in UTF-8", "save it as UTF-8"))
    if strict and type_of(path) in ("csv", "json", "jsonl"):
        _check_text(path)


def _check_text(path: Path) -> None:
    """Refuse text that is all but UTF-8: what begins with bytes that are none was written in another encoding.

    Bad bytes further on, or among much that is UTF-8, are bad rows with their numbers.
    """
    try:
        with opened(path) as file:
            start = file.read(_LOOKED_AT)
    except Exception:  # cut off or packed wrongly: whoever reads it says so
        return
    cut = start.rfind(b"\n") + 1  # a letter may be cut in two at the end of the piece
    try:
        (start if len(start) < _LOOKED_AT else start[:cut]).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if any(0xC2 <= byte <= 0xF4 for byte in start[: error.start]):
            return  # it has letters of UTF-8 before: bad rows of a file in UTF-8
        at = start[: error.start].count(b"\n") + 1
        found = f"bytes that are not UTF-8, first {start[error.start : error.start + 1]!r} in line {at}"
        guess = "cp1252 (Windows, Excel)" if _is_western(start) else "another encoding"
        mend = f"it looks like {guess}: save it as UTF-8, as by iconv -f cp1252 -t utf-8 {path.name}"
        if guess.startswith("another"):
            mend = "save it as UTF-8"
        raise InputError(problem(f"data {path}", found, "text in UTF-8", mend)) from None


def _is_western(text: bytes) -> bool:
    """Whether bytes could be cp1252: nothing in it that has no letter there."""
    try:
        text.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def type_of(path: Path) -> str | None:
    """The type of a file by its name, packed or not; None where no reader takes it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _TYPES.get(suffixes[-1]) if suffixes else None


def parsed(unread: Unread) -> Raw:
    """A row as its source has it, or the reason why it is none."""
    return _parsed(*unread) if isinstance(unread, Line) else unread


def numbered(rows: Iterable[Row]) -> Iterator[Raw]:
    """Rows with their numbers from 1."""
    return (Raw(number, row) for number, row in enumerate(rows, start=1))


def file_rows(path: Path) -> Iterator[Unread]:
    """The rows of a file, each with its number from 1 or the reason why it is none; lines of json as they stand.

    Raises:
        InputError: the file is empty, or json that holds no rows.
    """
    if path.stat().st_size == 0:
        raise InputError(problem("data", str(path), "at least one row", "the file is empty"))
    kind = type_of(path)
    if kind == "csv":
        return _csv_rows(path)
    if kind == "parquet":
        return _parquet_rows(path)
    if kind == "arrow":
        return numbered(datasets_library().Dataset.from_file(str(path)))
    return _json_lines(path) if _is_lines(path) else _json_list(path)


def _is_lines(path: Path) -> bool:
    """Whether a file has one object a line.

    A list begins otherwise, one object over many lines ends otherwise, and all rows under one key are one line alone.
    """
    with opened(path) as file:
        lines = (line.strip() for line in _lines(file) if line.strip())
        first, second = next(lines, b"{}").removeprefix(b"\xef\xbb\xbf"), next(lines, None)
    alone = second is None and type_of(path) == "json"
    return not first.startswith(b"[") and first != b"{" and not alone


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, as it has them.

    Raises:
        InputError: one is longer than a row may be.
    """
    most = ROW.most
    while line := file.readline(most + 1):
        if len(line) > most:
            raise ROW.refusal("data row")
        yield line


def _json_lines(path: Path) -> Iterator[Line]:
    with opened(path) as file:
        number = 0
        for line in _lines(file):
            if not line.isspace():
                number += 1
                yield Line(number, line)


def _parsed(number: int, line: bytes, file: str) -> Raw:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())  # files that were joined have several marks
        # In a line that is valid UTF-8 only an escape can bring a lone surrogate: all others need not be written again.
        text = json.dumps(row, ensure_ascii=False) if b"\\ud" in line or b"\\uD" in line else ""
    except (ValueError, RecursionError) as error:
        ended = line.rstrip()
        if ended.endswith(b"},"):  # the inside of a list, an object a line
            return _parsed(number, ended[:-1], file)
        return Raw(number, None, file, f"no json: {error}")
    if not isinstance(row, dict):
        return Raw(number, None, file, f"{type(row).__name__}, not an object with columns")
    return _of_text(number, row, text, file)


def _of_text(number: int, row: Row, text: str, file: str = "") -> Raw:
    """The row, if all of it can be written as text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Raw(number, None, file, f"no text in UTF-8: {error.reason}")
    return Raw(number, row, file)


def _json_list(path: Path) -> Iterator[Raw]:
    rows = _listed(read_bytes(path, f"data {path}").decode("utf-8-sig"))
    if rows is None:
        allowed = "a list of objects, one object a line, one after another, under one key, or columns of equal length"
        raise InputError(problem(f"data {path}", "other json", allowed))
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield _of_text(number, row, json.dumps(row, ensure_ascii=False))
        else:
            yield Raw(number, None, problem=f"{type(row).__name__}, not an object with columns")


def _listed(text: str) -> list[object] | None:
    """The rows of a json file: a list, objects one after another, a list under the only key, or columns."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        values.append(value)
        at = next((place for place in range(end, len(text)) if not text[place].isspace()), len(text))
    if len(values) != 1:
        return values
    [value] = values
    if isinstance(value, list):
        return value
    lists = [entry for entry in value.values() if isinstance(entry, list)] if isinstance(value, dict) else []
    under = [entry for entry in lists if entry and all(isinstance(row, dict) for row in entry)]
    if len(under) == 1 and not (len(lists) == len(value) > 1):
        return list(under[0])
    if isinstance(value, dict) and value and all(isinstance(cells, dict) for cells in value.values()):
        keys = list(next(iter(value.values())))  # as pandas writes a table: columns, each by the index of its rows
        if all(list(cells) == keys for cells in value.values()):
            return [{name: cells[key] for name, cells in value.items()} for key in keys]
    if isinstance(value, dict) and value and len(lists) == len(value) and len({len(entry) for entry in lists}) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
    return [value] if isinstance(value, dict) and value and not lists else None


def _text_lines(text: IO[str]) -> Iterator[str]:
    """As ``_lines``, of a text."""
    most = ROW.most
    while line := text.readline(most + 1):
        if len(line) > most:
            raise ROW.refusal("data row")
        yield line


def _csv_rows(path: Path) -> Iterator[Raw]:
    """Every cell is text: an answer may be "42", "NA" or "None"."""
    csv.field_size_limit(min(ROW.most, _LONGEST_CELL))
    with (
        opened(path) as file,
        # Spreadsheets write a BOM, which utf-8-sig takes off. Bytes that are no text pass as surrogates, so that
        # they are a problem of their row (_of_text) and not the end of the file.
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        lines = _text_lines(text)
        header = next(lines, "")
        # Strict: a quote in the wrong place is a bad row, not somebody's guess at one.
        records = csv.reader(chain([header], lines), strict=True, delimiter=delimiter(header))
        columns = next(records, None)
        if columns is None:
            return
        twice = sorted({name for name in columns if name and columns.count(name) > 1})
        if twice:
            raise InputError(problem(f"data {path} columns", ", ".join(twice), "every column once"))
        number = 0
        while True:
            try:
                cells = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Raw(number, None, problem=f"no csv: {error}")
                continue
            if not cells:
                continue  # a blank line
            number += 1
            if len(cells) == len(columns):
                yield _of_text(number, dict(zip(columns, cells, strict=True)), "".join(cells))
            else:
                yield Raw(number, None, problem=f"{len(cells)} cells under {len(columns)} columns")


def _parquet_rows(path: Path) -> Iterator[Raw]:
    import pyarrow.parquet as parquet

    packed = path.suffix.lower() in _PACKED
    # Parquet is read from its end, to which a packed stream cannot jump.
    with opened(path) if packed else nullcontext() as file:
        source = io.BytesIO(file.read()) if file else path
    with parquet.ParquetFile(source, buffer_size=_BUFFER) as file:
        names = [field.name for field in file.schema_arrow if str(field.type) in ("binary", "large_binary")]
        rows = (row for batch in file.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
        yield from numbered(_as_texts(rows, names) if names else rows)


def _as_texts(rows: Iterable[Row], names: Iterable[str]) -> Iterator[Row]:
    """Rows whose named cells, which hold bytes, are the texts that these are in UTF-8; other bytes stay as they are."""
    for row in rows:
        texts = dict(row)
        for name in names:
            with suppress(UnicodeDecodeError):
                texts[name] = row[name].decode() if isinstance(row[name], bytes) else row[name]
        yield texts
