"""Temporary folders that tell whose they are, so that those of a process that was killed are found and removed."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from valuedrift_mlflow.inputs.processes import Process, this

_NAME = re.compile(r"valuedrift-([0-9a-f]{8})([0-9a-f]{8})-(\d+)-(\d+)-")
_SOCKETS = 70  # characters: sockets, which libraries put below it, have about a hundred for their whole path


def temporary_folder(place: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder of this process; the first one asked for removes those of processes that were killed.

    ``place`` is where it lies, for whoever needs it on a certain disk; what is left there its owner removes.
    """
    _sweep()
    return tempfile.TemporaryDirectory(prefix=_prefix(), dir=place)


def keep_together() -> None:
    """Have all temporary files of this process, those of libraries too, in one folder that goes when it ends.

    For a process that is all ours: whole models pass through folders that MLflow names.
    """
    global _shared, _together
    if _together is not None:
        return
    _sweep()
    made = tempfile.mkdtemp(prefix=_prefix())
    if len(made) > _SOCKETS:
        os.rmdir(made)
        return
    _shared, _together = shared(), made
    tempfile.tempdir = made
    # Registered before the libraries': what they still remove at the end is there then.
    atexit.register(_remove_own, os.getpid())


def shared() -> Path:
    """The folder for temporary files that several processes use."""
    return _shared or Path(tempfile.gettempdir())


def remove() -> None:
    """Remove what ``keep_together`` keeps, for a process that ends without its usual end."""
    if _together is not None:
        shutil.rmtree(_together, ignore_errors=True)


_together: str | None = None
_shared: Path | None = None


def _remove_own(pid: int) -> None:
    if os.getpid() == pid:  # not in a process that was forked from it
        remove()


def _prefix() -> str:
    here = this()
    return f"valuedrift-{here.place}{here.boot}-{here.pid}-{here.started}-"


@cache
def _sweep() -> None:
    here = this()
    for path in shared().glob("valuedrift-*"):
        named = _NAME.match(path.name)
        if named is None or named[1] != here.place:
            continue
        owner = Process(here.host, named[1], named[2], int(named[3]), named[4])
        if owner.boot != here.boot or owner.dead:  # no process outlives its machine
            shutil.rmtree(path, ignore_errors=True)
