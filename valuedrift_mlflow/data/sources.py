"""Where data lies: files, folders, the hub and the embedded corpora, read row by row.

Json lines, csv, parquet, folders of them, folders that the ``datasets`` library has saved and the hub are read a piece
at a time, so that memory does not grow with the rows. A json file that is one list is read whole, and an embedded
corpus is made whole. A line or a csv record that cannot be read is a row with a problem, not the end of its file.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from valuedrift_mlflow.data import hub
from valuedrift_mlflow.data.messages import Raw
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Row

Rows = Callable[[], Iterator[Raw]]  # every call reads from the start
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


def check_source(data: Data) -> None:
    """Everything that can be said of a data URI without reading rows.

    Raises:
        InputError: bad options of an embedded corpus, a missing file, an unknown file type.
    """
    if data.uri.startswith(corpus.PREFIX):
        corpus.parse(data.uri)
        _refuse_split(data, "a corpus has no splits")
        return
    path = Path(data.uri).expanduser()
    several = _matching(data.uri)
    if several:
        _refuse_split(data, "files have no splits, but slices as train[:10%]")
        for file in several:
            _check_file(file, data)
        return
    looks_like_path = bool(path.suffix and _type(path)) or data.uri.startswith((".", "/", "~"))
    if looks_like_path and not path.exists():
        raise InputError(problem("data", data.uri, "an existing file or folder, an embedded: URI or a hub id"))
    if path.is_file():
        _check_file(path, data)
        _refuse_split(data, "a file has no splits, but slices as train[:10%]")
    elif (path / "dataset_info.json").is_file():
        _refuse_split(data, "what was saved is one split, of which there are slices as train[:10%]")
    elif (path / "config.json").is_file():
        raise InputError(problem("data", data.uri, "data", "this folder holds a model (config.json)"))


def _matching(uri: str) -> list[Path]:
    """The files of a pattern (``data/part-*.jsonl``), by name, or of a list with commas; none for any other URI."""
    path = Path(uri).expanduser()
    listed = [Path(name.strip()).expanduser() for name in uri.split(",")]
    if len(listed) > 1 and all(map(Path.is_file, listed)):
        return listed
    if not set("*?[") & set(uri) or path.exists() or uri.startswith(corpus.PREFIX):
        return []
    return sorted(Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file())


def _check_file(path: Path, data: Data) -> None:
    if not _type(path):
        allowed = "a jsonl, ndjson, json, csv, tsv, parquet or arrow file (packed as .gz, .bz2, .xz or .zst too)"
        raise InputError(problem("data", str(path), allowed))
    _check_bytes(path, data.on_bad_row == "error")


def _refuse_split(data: Data, reason: str) -> None:
    """Refuse what chooses among parts of data that have none; of all rows, which are ``train``, a slice can be had."""
    settings = (("split", data.split, "train"), ("subset", data.subset, None), ("revision", data.revision, None))
    for name, given, default in settings:
        if given == default:
            continue
        if name != "split" or not _is_slice(data.split) or data.uri.startswith(corpus.PREFIX):
            raise InputError(problem(f"data {data.uri} {name}", given, f"none: {reason}"))


def _is_slice(split: str) -> bool:
    """Whether a split is some of ``train``, such as ``train[:10%]``, in the notation of the datasets library."""
    if not split.startswith("train["):
        return False
    try:
        _datasets().ReadInstruction.from_spec(split).to_absolute({"train": 100})
    except (AssertionError, KeyError, ValueError):
        return False
    return True


def _sliced(rows: Rows, split: str) -> Rows:
    """Those rows of a source without splits that a slice names."""
    if split == "train":
        return rows

    def read() -> Iterator[Raw]:
        count = sum(1 for _ in rows())
        for part in _datasets().ReadInstruction.from_spec(split).to_absolute({"train": count}):
            yield from islice(rows(), part.from_, part.to)

    return read


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
    if strict and _type(path) in ("csv", "json", "jsonl"):
        _check_text(path)


def _check_text(path: Path) -> None:
    """Refuse text that is all but UTF-8: what begins with bytes that are none was written in another encoding.

    Bad bytes further on, or among much that is UTF-8, are bad rows with their numbers.
    """
    try:
        with _opened(path) as file:
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


def _type(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _TYPES.get(suffixes[-1]) if suffixes else None


def open_rows(data: Data, *, download: bool) -> Rows:
    """The rows of a source. ``download`` keeps data of the hub in the hub's cache; without it they are streamed.

    Raises:
        InputError: the source cannot be read. Reading its rows may raise it too.
    """
    if data.uri.startswith(corpus.PREFIX):
        made = corpus.rows(data.uri)
        return lambda: _numbered(made)
    path = Path(data.uri).expanduser()
    with _named_errors(data.uri):
        several = _matching(data.uri)
        if several:
            return _guarded(data.uri, _sliced(partial(_folder_rows, several[0].parent, several), data.split))
        if path.is_file():
            return _guarded(data.uri, _sliced(partial(_file_rows, path), data.split))
        if path.is_dir() and not (path / "dataset_info.json").is_file() and not (path / "dataset_dict.json").is_file():
            files = _files_of(path, data)
            if files is not None:
                return _guarded(data.uri, partial(_folder_rows, path, files))
        rows = _library_rows(path, data, download)
        if (path / "dataset_info.json").is_file():  # what was saved is one split
            return _guarded(data.uri, _sliced(lambda: _numbered(rows), data.split))
        return _guarded(data.uri, lambda: _numbered(rows))


def _numbered(rows: Iterable[Row]) -> Iterator[Raw]:
    return (Raw(number, row) for number, row in enumerate(rows, start=1))


# A source is opened once and read later, again and again: errors of reading must name it as well.
def _guarded(uri: str, rows: Rows) -> Rows:
    def read() -> Iterator[Raw]:
        with _named_errors(uri):
            yield from rows()

    return read


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    """Say of which source an error is. Every library raises its own kind."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()
        reason = " ".join(lines[:2])  # the library names the subsets of a data set in its second line
        raise InputError(problem("data", uri, "a readable file, folder or hub id", reason)) from error


# Folders and the hub -------------------------------------------------------------------------------------------------


def _datasets() -> ModuleType:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or every local file is reported to the hub, with a wait offline
    library: ModuleType = datasets
    return library


def _files_of(folder: Path, data: Data) -> list[Path] | None:
    """The files of a folder's split, as the ``datasets`` library finds them; None where it must read them itself."""
    if not data.split.replace("_", "").replace("-", "").isalnum():
        return None  # a part of a split, or several
    by_split = _datasets().load_dataset_builder(str(folder), name=data.subset).config.data_files or {}
    if data.split not in by_split:
        raise InputError(
            problem(f"data {data.uri} split", data.split, ", ".join(map(str, by_split)) or "a folder of data")
        )
    files = [Path(file) for file in by_split[data.split]]
    return files if all(_type(file) and file.is_file() for file in files) else None


def _folder_rows(folder: Path, files: Iterable[Path]) -> Iterator[Raw]:
    for file in files:
        name = str(file.relative_to(folder.resolve())) if file.is_relative_to(folder.resolve()) else file.name
        for raw in _file_rows(file):
            yield raw._replace(file=name)  # numbers begin again in each file


def _library_rows(path: Path, data: Data, download: bool) -> Iterable[Row]:
    datasets = _datasets()
    if (path / "dataset_info.json").is_file():
        saved: Iterable[Row] = datasets.load_from_disk(str(path))
        return saved
    if (path / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(str(path))
        if data.split not in splits:
            raise InputError(problem(f"data {data.uri} split", data.split, ", ".join(splits)))
        split: Iterable[Row] = splits[data.split]
        return split
    streaming = not download and "[" not in data.split  # a part of a split cannot be streamed
    asked = {"name": data.subset, "split": data.split, "streaming": streaming}
    if path.is_dir():
        from_folder: Iterable[Row] = datasets.load_dataset(str(path), **asked)
        return from_folder
    asked |= {"revision": data.revision} if data.revision else {}
    with nullcontext() if hub.has(data) else hub.cache_alone(data.uri):
        from_hub: Iterable[Row] = datasets.load_dataset(data.uri, **asked)
        return from_hub


# Files ---------------------------------------------------------------------------------------------------------------


def _file_rows(path: Path) -> Iterator[Raw]:
    if path.stat().st_size == 0:
        raise InputError(problem("data", str(path), "at least one row", "the file is empty"))
    kind = _type(path)
    if kind == "csv":
        return _csv_rows(path)
    if kind == "parquet":
        return _parquet_rows(path)
    if kind == "arrow":
        return _numbered(_datasets().Dataset.from_file(str(path)))
    return _json_lines(path) if _is_lines(path) else _json_list(path)


def _opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked by what it is, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(path))
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow

        return cast("IO[bytes]", io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def _is_lines(path: Path) -> bool:
    """Whether a file has one object a line.

    A list begins otherwise, one object over many lines ends otherwise, and all rows under one key are one line alone.
    """
    with _opened(path) as file:
        lines = (line.strip() for line in file if line.strip())
        first, second = next(lines, b"{}").removeprefix(b"\xef\xbb\xbf"), next(lines, None)
    alone = second is None and _type(path) == "json"
    return not first.startswith(b"[") and first != b"{" and not alone


def _json_lines(path: Path) -> Iterator[Raw]:
    with _opened(path) as file:
        number = 0
        for line in file:
            if line.strip():
                number += 1
                yield _parsed(number, line)


def _parsed(number: int, line: bytes) -> Raw:
    if line.rstrip().endswith(b"},"):  # the inside of a list, an object a line
        line = line.rstrip()[:-1]
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Raw(number, None, problem=f"no json: {error}")
    if not isinstance(row, dict):
        return Raw(number, None, problem=f"{type(row).__name__}, not an object with columns")
    # In a line that is valid UTF-8 only an escape can bring a lone surrogate: all others need not be written again.
    if b"\\ud" in line or b"\\uD" in line:
        return _of_text(number, row, json.dumps(row, ensure_ascii=False))
    return Raw(number, row)


def _of_text(number: int, row: Row, text: str) -> Raw:
    """The row, if all of it can be written as text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Raw(number, None, problem=f"no text in UTF-8: {error.reason}")
    return Raw(number, row)


def _json_list(path: Path) -> Iterator[Raw]:
    with _opened(path) as file:
        rows = _listed(file.read().decode("utf-8-sig"))
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


def _delimiter(header: str) -> str:
    """What parts the cells of a first line: a comma, or what spreadsheets write where the comma is a decimal one."""
    return next((mark for mark in ("\t", ";") if mark in header and "," not in header), ",")


def _csv_rows(path: Path) -> Iterator[Raw]:
    """Every cell is text: an answer may be "42", "NA" or "None"."""
    csv.field_size_limit(_LONGEST_CELL)
    with (
        _opened(path) as file,
        # Spreadsheets write a BOM, which utf-8-sig takes off. Bytes that are no text pass as surrogates, so that
        # they are a problem of their row (_of_text) and not the end of the file.
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        header = text.readline()
        text.seek(0)
        # Strict: a quote in the wrong place is a bad row, not somebody's guess at one.
        records = csv.reader(text, strict=True, delimiter=_delimiter(header))
        columns = next(records, None)
        if columns is None:
            return
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
    with _opened(path) if packed else nullcontext() as file:
        # Parquet is read from its end, to which a packed stream cannot jump.
        source = io.BytesIO(file.read()) if file else path
    with parquet.ParquetFile(source, buffer_size=_BUFFER) as file:
        names = [field.name for field in file.schema_arrow if str(field.type) in ("binary", "large_binary")]
        rows = (row for batch in file.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
        yield from _numbered(_as_texts(rows, names) if names else rows)


def _as_texts(rows: Iterable[Row], names: Iterable[str]) -> Iterator[Row]:
    """Rows whose named cells, which hold bytes, are the texts that these are in UTF-8; other bytes stay as they are."""
    for row in rows:
        texts = dict(row)
        for name in names:
            with suppress(UnicodeDecodeError):
                texts[name] = row[name].decode() if isinstance(row[name], bytes) else row[name]
        yield texts
