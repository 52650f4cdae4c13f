"""Verdicts that were paid for once: kept on disk under a hash of everything that made them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from valuedrift_mlflow.judges.judge import CostlyJudge
from valuedrift_mlflow.stances import Answer, Label, Spent, Verdict

_TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL)"
_SECONDS = 60.0  # how long one process waits while another one writes
_AS_JSON = json.JSONEncoder().encode
_AT_ONCE = 500  # keys in one query; SQLite takes 999 of them in its oldest form


def cache_file() -> Path:
    """Where verdicts are kept: in the user's cache folder (``XDG_CACHE_HOME`` moves it)."""
    return Path(platformdirs.user_cache_dir("valuedrift-mlflow", appauthor=False)) / "verdicts.sqlite"


def key(judge: str, version: str, answer: Answer) -> str:
    """The content address of one verdict: SHA-256 over judge, version and what a model is shown of the answer."""
    # Not the polarity, which these judges are not told: an audit asks without it about what a synthesis has judged
    # with it. The 1 in its place keeps most of the verdicts of earlier versions.
    parts = (judge, version, answer.proposition, answer.prompt, answer.response)
    # As JSON writes a list, piece by piece: a string alone is written many times as fast as a list of them.
    return hashlib.sha256(f"[{', '.join(map(_AS_JSON, parts))}, 1]".encode()).hexdigest()


class CachedJudge:
    """A judge that asks another one only what it was never asked before.

    Every verdict is written as soon as it arrives, so that what was paid for survives a crash; equal answers in one
    batch are asked once. Verdicts that failed are not kept: they are asked again next time.
    """

    def __init__(self, judge: CostlyJudge, file: Path | None = None) -> None:
        """Keep the verdicts of ``judge`` in ``file`` (a SQLite database, made where it is missing)."""
        self.inner = judge
        self.name = judge.name
        self.file = file or cache_file()

    @property
    def version(self) -> str:
        """The other judge's version."""
        return self.inner.version

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict per answer, in the same order; ``cached`` marks those that cost nothing now."""
        keys = [key(self.name, self.version, answer) for answer in answers]
        # Only now: to name a judge, as a dry run does, writes nothing.
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=_SECONDS)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
            # What is written outlives the process; a power cut may take the last seconds, and never the rest.
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(_TABLE)
            known = dict(_stored(database, keys))
            # Reversed, so that of equal answers the first one stays, and is the one that is paid.
            first = {k: index for index, k in reversed(list(enumerate(keys))) if k not in known}
            asked = sorted(first.values())
            new: dict[str, Verdict] = {}
            for position, verdict in self.inner.verdicts([answers[index] for index in asked]):
                address = keys[asked[position]]
                new[address] = verdict
                if not verdict.failed:
                    with database:  # a transaction each: a crash loses no verdict that was paid for
                        database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (address, _packed(verdict)))
        paid_now = set(asked)
        return [
            known[k] if k in known else new[k] if index in paid_now else replace(new[k], cached=True)
            for index, k in enumerate(keys)
        ]


def _stored(database: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    addresses = list(dict.fromkeys(keys))
    for start in range(0, len(addresses), _AT_ONCE):
        some = addresses[start : start + _AT_ONCE]
        query = f"SELECT key, verdict FROM verdicts WHERE key IN ({', '.join('?' * len(some))})"
        rows = dict(database.execute(query, some).fetchall())
        # Together: to read each alone takes twice as long.
        yield from zip(rows, map(_unpacked, json.loads(f"[{','.join(rows.values())}]")), strict=True)


def _packed(verdict: Verdict) -> str:
    spent = verdict.spent
    return json.dumps(
        {
            "label": verdict.label.value,
            "probabilities": verdict.probabilities,
            "intensity": verdict.intensity,
            "reason": verdict.reason,
            "spent": [spent.calls, spent.tokens, spent.dollars],
        }
    )


def _unpacked(stored: dict[str, Any]) -> Verdict:
    probabilities = stored["probabilities"]
    return Verdict(
        Label(stored["label"]),
        None if probabilities is None else (probabilities[0], probabilities[1], probabilities[2]),
        stored["intensity"],
        stored["reason"],
        spent=Spent(*stored["spent"]),
        cached=True,
    )
