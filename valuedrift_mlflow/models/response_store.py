"""Texts under the hash of what made them, on disk: bounded, shared by processes, rebuilt where it is damaged."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import platformdirs

from valuedrift_mlflow.inputs.databases import ERRORS, is_damage

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

LIMIT = 512 * 2**20  # bytes on disk, above which what was not asked for longest goes
_LEFT = 0.9  # of the limit once something had to go, so that not every further text makes another one go
_AT_ONCE = 10_000  # texts of one transaction: other processes wait no longer than that takes
_WAIT = 60.0  # seconds that one process waits while another one writes
_FRESH = 3600.0  # seconds for which a use is not noted again: reading would write
# No journal of its own kind (WAL): its files beside this one would outlive it where a damaged one is replaced.
_TABLES = """
CREATE TABLE IF NOT EXISTS responses
    (key BLOB PRIMARY KEY, text BLOB NOT NULL, mark BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON responses (used);
"""


def store_file() -> Path:
    """Where responses are kept: in the user's cache folder (``XDG_CACHE_HOME`` moves it)."""
    return Path(platformdirs.user_cache_dir("valuedrift-mlflow", appauthor=False)) / "responses.sqlite"


class ResponseStore:
    """A SQLite file of texts by their keys.

    It never stands in the way of a measurement: what cannot be read counts as missing, and what cannot be written is
    left out with a warning.
    """

    def __init__(self, file: Path | None = None, limit: int = LIMIT) -> None:
        """Keep texts in ``file``, made where it is missing, and at most about ``limit`` bytes of them."""
        self.file = file or store_file()
        self.limit = limit

    def known(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The texts that are kept under these keys, whole ones only."""

        def read(database: sqlite3.Connection) -> dict[bytes, str]:
            found, now = dict[bytes, str](), time.time()
            stale: list[tuple[float, bytes]] = []
            for key in dict.fromkeys(keys):
                row = database.execute("SELECT text, mark, used FROM responses WHERE key = ?", (key,)).fetchone()
                # SQLite keeps any type in any column: a cell that was written over may be a text.
                whole = row is not None and isinstance(row[0], bytes) and isinstance(row[2], float)
                if not whole or _mark(key, row[0]) != row[1]:
                    continue
                found[key] = row[0].decode("utf-8", "surrogatepass")
                if now - row[2] > _FRESH:
                    stale.append((now, key))
            with suppress(sqlite3.OperationalError), database:  # where nothing can be written there is still to read
                database.executemany("UPDATE responses SET used = ? WHERE key = ?", stale)
            return found

        return self._attempt(read, {}) if self.file.exists() else {}

    def keep(self, texts: Mapping[bytes, str]) -> None:
        """Add texts under their keys."""
        rows = [
            (key, raw, _mark(key, raw), time.time())
            for key, raw in ((key, text.encode("utf-8", "surrogatepass")) for key, text in texts.items())
        ]

        def write(database: sqlite3.Connection) -> None:
            for start in range(0, len(rows), _AT_ONCE):
                with database:
                    database.executemany(
                        "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", rows[start : start + _AT_ONCE]
                    )
                    self._make_room(database)

        self._attempt(write, None)

    def _make_room(self, database: sqlite3.Connection) -> None:
        size = _bytes(database)
        if size <= self.limit:
            return
        count = int(database.execute("SELECT COUNT(*) FROM responses").fetchone()[0])
        surplus = count - int(count * _LEFT * self.limit / size)
        database.execute(
            "DELETE FROM responses WHERE key IN (SELECT key FROM responses ORDER BY used LIMIT ?)", (surplus,)
        )

    def _attempt(self, work: Callable[[sqlite3.Connection], _Result], otherwise: _Result) -> _Result:
        """What ``work`` gives with the database, which is made anew where it is damaged."""
        for again in (True, False):
            try:
                with self._open() as database:
                    return work(database)
            except ERRORS as error:
                if not is_damage(error):  # locked for long, a full disk, a folder of others
                    logger.warning("responses are not kept: %s: %s", self.file, error)
                    break
                logger.warning("%s is damaged and is made anew: %s", self.file, error)
                if again:
                    # Another process that has it open goes on with what it has; only kept texts are lost.
                    self.file.unlink(missing_ok=True)
        return otherwise

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=_WAIT)) as database:
            database.executescript(_TABLES)
            yield database


def _mark(key: bytes, text: bytes) -> bytes:
    """What tells a text that was written whole under its key from one that was not."""
    return hashlib.blake2b(text, digest_size=8, key=key[:64]).digest()


def _bytes(database: sqlite3.Connection) -> int:
    """Bytes of the file that hold something: pages that became free are used again before it grows."""
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
