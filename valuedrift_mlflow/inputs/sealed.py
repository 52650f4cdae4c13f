"""Folders that this package writes to read again: a list of their files with hashes, written last of all.

A folder without it was never finished; one whose files are other ones than it says is damaged, and is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.reading import json_object


def seal(folder: Path, name: str) -> None:
    """Write down what a folder holds, as its file ``name``, once everything else is on the disk."""
    files = {str(file.relative_to(folder)): _of(file) for file in _files(folder, name)}
    for file in files:
        _flush(folder / file)
    scratch = folder / f".{name}"
    scratch.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    _flush(scratch)
    os.replace(scratch, folder / name)
    _flush(folder)


def damage(folder: Path, name: str) -> str:
    """What is wrong with a sealed folder, in words; empty where it is what was sealed.

    A seal without a list is one of an earlier version: then nothing can be told, and nothing is held against it.
    """
    file = folder / name
    if not file.is_file():
        return "it was not written to its end"
    if file.stat().st_size == 0:
        return ""
    files = (json_object(file) or {}).get("files")
    if not isinstance(files, dict):
        return f"{name} cannot be read"
    if not files:  # nothing is sealed that holds nothing
        return f"{name} lists no file"
    for member, told in files.items():
        path, shown = folder / str(member), one_line(member)  # a damaged seal may say anything
        try:
            found = _of(path) if path.is_file() else None
        except OSError as error:  # it is no name of a file, or a file that nobody can read
            return f"{shown} cannot be read: {error.strerror}"
        if found is None:
            return f"{shown} is missing"
        if found != told:
            return f"{shown} is not what was written"
    return ""


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (name, f".{name}"))


def _of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
