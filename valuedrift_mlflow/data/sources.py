"""Where data lies: files, folders, the hub and the embedded corpora, read row by row.

Json lines, csv, parquet, folders of them, folders that the ``datasets`` library has saved and the hub are read a piece
at a time, so that memory does not grow with the rows. A json file that is one list is read whole, and an embedded
corpus is made whole. ``files.py`` reads a file, the ``datasets`` library all else; docs/architecture.md says why.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

from valuedrift_mlflow.data import hub
from valuedrift_mlflow.data.chosen_files import chosen, folder_of
from valuedrift_mlflow.data.files import Unread, check_file, file_rows, numbered, type_of
from valuedrift_mlflow.data.library import datasets_library
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.rows import Record, Row

Rows = Callable[[], Iterator[Unread]]  # every call reads from the start


def check_source(data: Data) -> None:
    """Everything that can be said of a data URI without reading rows.

    Raises:
        InputError: bad options of an embedded corpus, a missing file, an unknown file type.
    """
    if data.data_files or data.data_dir:
        _check_chosen(data)
        return
    if data.uri.startswith(corpus.PREFIX):
        corpus.parse(data.uri)
        _refuse_split(data, "a corpus has no splits")
        return
    path = user_path(data.uri)
    several = _matching(data.uri)
    if several:
        _refuse_split(data, "files have no splits, but slices as train[:10%]")
        for file in several:
            check_file(file, strict=data.on_bad_row == "error")
        return
    looks_like_path = bool(path.suffix and type_of(path)) or data.uri.startswith((".", "/", "~"))
    if looks_like_path and not path.exists():
        raise InputError(problem("data", data.uri, "an existing file or folder, an embedded: URI or a hub id"))
    if path.is_file():
        check_file(path, strict=data.on_bad_row == "error")
        _refuse_split(data, "a file has no splits, but slices as train[:10%]")
    elif (path / "dataset_info.json").is_file():
        _refuse_split(data, "what was saved is one split, of which there are slices as train[:10%]")
    elif (path / "config.json").is_file():
        raise InputError(problem("data", data.uri, "data", "this folder holds a model (config.json)"))


def _check_chosen(data: Data) -> None:
    """Refuse files that are not there, and those of what has none."""
    folder = folder_of(data)
    if folder is None:
        if is_local(data):
            name, given = ("data_files", data.data_files) if data.data_files else ("data_dir", data.data_dir)
            raise InputError(
                problem(f"data {data.uri} {name}", given, "none: only folders and hub datasets have files")
            )
        return  # the hub has them
    if not folder.is_dir():
        raise InputError(problem(f"data {data.uri} data_dir", data.data_dir, "a folder within it"))
    if data.data_files is None:
        check_source(_within(data, folder))
        return
    for name, value in (("subset", data.subset), ("revision", data.revision)):
        if value is not None:
            raise InputError(problem(f"data {data.uri} {name}", value, "none: data_files names the files"))
    files = chosen(data, folder)
    if "[" in data.split and not _is_slice(data.split):
        raise InputError(problem(f"data {data.uri} split", data.split, "a slice, as train[:10%] or train[100:200]"))
    for file in files:
        check_file(file, strict=data.on_bad_row == "error")


def _within(data: Data, folder: Path) -> Data:
    """A folder in the data's own in its place."""
    return data.model_copy(update={"uri": str(folder), "data_dir": None})


def is_local(data: Data) -> bool:
    """Whether the data lie on this machine, so that reading them asks no hub."""
    here = data.uri.startswith(corpus.PREFIX) or user_path(data.uri).exists()
    return here or bool(_matching(data.uri)) or folder_of(data) is not None


def _matching(uri: str) -> list[Path]:
    """The files of a pattern (``data/part-*.jsonl``), by name, or of a list with commas; none for any other URI."""
    path = user_path(uri)
    listed = [user_path(name.strip()) for name in uri.split(",")]
    if len(listed) > 1 and all(map(Path.is_file, listed)):
        return listed
    if not set("*?[") & set(uri) or path.exists() or uri.startswith(corpus.PREFIX):
        return []
    return sorted(Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file())


def _refuse_split(data: Data, reason: str) -> None:
    """Refuse what chooses among parts of data that have none; of all rows, which are ``train``, a slice can be had."""
    settings = (("split", data.split, "train"), ("subset", data.subset, None), ("revision", data.revision, None))
    for name, given, default in settings:
        if given == default:
            continue
        sliced = data.split.startswith("train[") and _is_slice(data.split)
        if name != "split" or not sliced or data.uri.startswith(corpus.PREFIX):
            raise InputError(problem(f"data {data.uri} {name}", given, f"none: {reason}"))


def _is_slice(split: str) -> bool:
    """Whether a split is some of one, such as ``train[:10%]``, in the notation of the datasets library."""
    try:
        datasets_library().ReadInstruction.from_spec(split).to_absolute({split.partition("[")[0]: 100})
    except (AssertionError, KeyError, ValueError):
        return False
    return True


def _sliced(rows: Rows, split: str) -> Rows:
    """Those rows of one split that a slice names."""
    name, sliced, _ = split.partition("[")
    if not sliced:
        return rows

    def read() -> Iterator[Unread]:
        count = sum(1 for _ in rows())
        for part in datasets_library().ReadInstruction.from_spec(split).to_absolute({name: count}):
            yield from islice(rows(), part.from_, part.to)

    return read


def open_rows(data: Data, *, download: bool) -> Rows:
    """The rows of a source. ``download`` keeps data of the hub in the hub's cache; without it they are streamed.

    Raises:
        InputError: the source cannot be read. Reading its rows may raise it too.
    """
    if data.uri.startswith(corpus.PREFIX):
        made = corpus.rows(data.uri)
        return lambda: numbered(made)
    folder = folder_of(data) if data.data_files or data.data_dir else None
    if folder is not None and not data.data_files:
        return open_rows(_within(data, folder), download=download)
    path = user_path(data.uri)
    with _named_errors(data.uri):
        if folder is not None:
            return _guarded(data.uri, _sliced(partial(_folder_rows, folder, chosen(data, folder)), data.split))
        several = _matching(data.uri)
        if several:
            return _guarded(data.uri, _sliced(partial(_folder_rows, several[0].parent, several), data.split))
        if path.is_file():
            return _guarded(data.uri, _sliced(partial(file_rows, path), data.split))
        if path.is_dir() and not (path / "dataset_info.json").is_file() and not (path / "dataset_dict.json").is_file():
            files = _files_of(path, data)
            if files is not None:
                return _guarded(data.uri, partial(_folder_rows, path, files))
        rows = _library_rows(path, data, download)
        if (path / "dataset_info.json").is_file():  # what was saved is one split
            return _guarded(data.uri, _sliced(lambda: numbered(rows), data.split))
        return _guarded(data.uri, lambda: numbered(rows))


def _guarded(uri: str, rows: Rows) -> Rows:
    # A source is opened once and read later, again and again: errors of reading must name it as well.
    def read() -> Iterator[Unread]:
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


def _files_of(folder: Path, data: Data) -> list[Path] | None:
    """The files of a folder's split, as the ``datasets`` library finds them; None where it must read them itself."""
    if not data.split.replace("_", "").replace("-", "").isalnum():
        return None  # a part of a split, or several
    by_split = datasets_library().load_dataset_builder(str(folder), name=data.subset).config.data_files or {}
    if data.split not in by_split:
        raise InputError(
            problem(f"data {data.uri} split", data.split, ", ".join(map(str, by_split)) or "a folder of data")
        )
    files = [Path(file) for file in by_split[data.split]]
    return files if all(type_of(file) and file.is_file() for file in files) else None


def _folder_rows(folder: Path, files: Iterable[Path]) -> Iterator[Unread]:
    for file in files:
        name = str(file.relative_to(folder.resolve())) if file.is_relative_to(folder.resolve()) else file.name
        for unread in file_rows(file):
            yield unread._replace(file=name)  # numbers begin again in each file


def _library_rows(path: Path, data: Data, download: bool) -> Iterable[Row]:
    datasets = datasets_library()
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
    asked: Record = {"name": data.subset, "split": data.split, "streaming": streaming}
    if path.is_dir():
        from_folder: Iterable[Row] = datasets.load_dataset(str(path), **asked)
        return from_folder
    named = {"revision": data.revision, "data_files": data.data_files, "data_dir": data.data_dir}
    asked |= {key: value for key, value in named.items() if value}
    with nullcontext() if hub.has(data) else hub.cache_alone(data.uri):
        from_hub: Iterable[Row] = datasets.load_dataset(data.uri, **asked)
        return from_hub
