"""``data.data_files`` and ``data.data_dir``: files of a folder or of the hub, as HF's ``load_dataset`` takes them."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import user_path

# What `load_dataset` names instead of a folder: the files are then named from where one works.
BUILDERS = ("json", "csv", "parquet", "arrow")
_SHOWN = 10  # files of a folder that an error lists


def folder_of(data: Data) -> Path | None:
    """The folder here whose files are named; None where they are the hub's, or the data are no folder."""
    folder = user_path(data.uri)
    if folder.is_dir():
        return folder / (data.data_dir or "")
    return user_path(data.data_dir or ".") if data.uri in BUILDERS and data.data_files else None


def chosen(data: Data, folder: Path) -> list[Path]:
    """The files of the split, in the order of their patterns and by name within each.

    Raises:
        InputError: there is no such split among those that are named, or a pattern of any split matches nothing.
    """
    named = data.data_files if isinstance(data.data_files, Mapping) else {"train": data.data_files or []}
    split = data.split.partition("[")[0]
    if split not in named:
        raise InputError(problem(f"data {data.uri} split", data.split, f"{', '.join(named)}, as data_files has them"))
    found = {name: _matching(data, folder, patterns) for name, patterns in named.items()}
    return found[split]


def _matching(data: Data, folder: Path, patterns: str | list[str]) -> list[Path]:
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = glob.glob(str(folder / user_path(pattern)), recursive=True)
        here = sorted(path for path in map(Path, matched) if path.is_file())
        if not here:
            raise InputError(problem(f"data {data.uri} data_files", pattern, f"files of {folder}: {_holds(folder)}"))
        files += here
    return list(dict.fromkeys(files))


def _holds(folder: Path) -> str:
    """The files of a folder, as a line of an error."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    shown = ", ".join(str(path.relative_to(folder)) for path in files[:_SHOWN])
    return (shown or "it holds none") + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")
