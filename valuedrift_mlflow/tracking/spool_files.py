"""The files of a spool: lines that are added to a file, and files that are laid aside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path


def append(file: Path, line: Mapping[str, object]) -> None:
    """Add a line."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a file that only grows, without a last one that was cut off."""
    if not file.is_file():
        return
    content = file.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)  # or the next line would be written behind it
    yield from content.split(b"\n")[:-1]


def files_in(path: Path) -> list[Path]:
    """The files in a folder; a file is itself one."""
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def lay_aside(files: Path, folder: Path, *, copied: bool) -> None:
    """Lay a file or a folder, under its name, into a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)  # of a write that was never put down to its end
    folder.mkdir(parents=True)
    take = shutil.copy2 if copied else _linked
    if files.is_dir():
        shutil.copytree(files, folder / files.name, copy_function=take)
    else:
        take(str(files), str(folder / files.name))


def _linked(file: str, target: str) -> None:
    try:
        os.link(file, target)
    except OSError:  # on another disk, or one that has no links
        shutil.copy2(file, target)
