"""Disks that are full or take no writes, and caches that two jobs share. Mounting takes root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from faults_sections.kills import goes_on
from faults_sections.place import PIPELINE, Outcome, Place, differences

_MB = 2**20


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    """A small disk in place of a folder."""
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def full(place: Place, most: int) -> Iterator[Outcome]:
    """The disk with the store and the states is full at a share of what a job writes; then there is room again."""
    arguments = ["--recipe", place.recipe(PIPELINE)]
    if place.run("main", *arguments).returncode:
        raise RuntimeError("main does not run")
    expected, size = place.told(), _bytes(place.folder)
    place.forget()
    for share in (0.5, 0.1, 0.3, 0.7, 0.9)[:most]:
        with _disk(place.folder, int(share * size)):
            arguments = ["--recipe", place.recipe(PIPELINE)]
            # It waits for room, as for a server that is away: not for ten minutes here.
            done = place.run("main", *arguments, VALUEDRIFT_SPOOL_WAIT="20")
            why = "was not full" if done.returncode == 0 else _told_full(done.stderr)
            _mount("-o", f"remount,size={10 * size}", str(place.folder))
            yield Outcome("full disk", f"at {share:.0%} of a job", why or goes_on(place, "main", arguments, expected))
        place.forget()


def _told_full(said: str) -> str:
    # SQLite has words of its own for it.
    known = "No space left" in said or "database or disk is full" in said
    return "" if known else f"its last line: {said.strip().splitlines()[-1:]}"


def read_only(place: Place) -> Iterator[Outcome]:
    """A cache that takes no writes is done without; a store that takes none ends in one line."""
    arguments = ["--recipe", place.recipe(PIPELINE)]
    if place.run("main", *arguments).returncode:
        raise RuntimeError("main does not run")
    expected = place.told()
    place.forget()
    for name, folder in (("the cache", place.caches), ("the working folder", place.folder)):
        with _disk(folder, 100 * _MB):
            arguments = ["--recipe", place.recipe(PIPELINE)]
            _mount("-o", "remount,ro", str(folder))
            done = place.run("main", *arguments)
            if folder is place.caches:
                why = differences(place.told(), expected) if done.returncode == 0 else done.stderr[-300:]
            else:
                told = done.returncode == 2 and "Traceback" not in done.stderr
                why = "" if told else f"exit code {done.returncode}: {done.stderr[-300:]}"
        yield Outcome("read-only", name, why)
        place.forget()


def shared_cache(place: Place, other: Place) -> Iterator[Outcome]:
    """Two jobs begin at once with one empty cache."""
    arguments = ["--recipe", place.recipe(PIPELINE)]
    if place.run("main", *arguments).returncode:
        raise RuntimeError("main does not run")
    expected = place.told()
    place.forget()
    cache = {"XDG_CACHE_HOME": str(place.caches)}
    with ThreadPoolExecutor(2) as both:
        jobs = [both.submit(one.run, "main", "--recipe", one.recipe(PIPELINE), **cache) for one in (place, other)]
    codes = [job.result().returncode for job in jobs]
    differ = "" if any(codes) else differences(place.told(), expected) or differences(other.told(), expected)
    yield Outcome("two jobs at once", "with one empty cache", f"exit codes {codes}" if any(codes) else differ)
