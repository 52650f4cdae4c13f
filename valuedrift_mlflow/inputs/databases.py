"""SQLite files that this package keeps things in: whether one is damaged, or cannot be had for the moment."""

from __future__ import annotations

import sqlite3

# Locked, of others, full, or not to be opened: the file is whole, and may be had at another time.
_PASSING = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)


# UnicodeDecodeError: what SQLite says of a schema that was written over may be no text.
ERRORS = (sqlite3.Error, OSError, UnicodeDecodeError)


def is_damage(error: BaseException) -> bool:
    """Whether a file is no database, a damaged one, or one of another form; then it is begun anew."""
    if isinstance(error, UnicodeDecodeError):
        return True
    # By its code: Python calls a header that was written over "operational", as it does a lock.
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and code & 0xFF not in _PASSING
