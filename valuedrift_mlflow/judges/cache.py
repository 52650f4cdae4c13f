"""Verdicts that were paid for once: kept on disk under a hash of everything that made them."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, model_validator

from valuedrift_mlflow.inputs.databases import ERRORS, is_damage
from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.judges.authored import as_authored
from valuedrift_mlflow.judges.judge import CostlyJudge
from valuedrift_mlflow.stances import Answer, Label, Spent, Verdict

logger = logging.getLogger(__name__)
_TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL)"
_Share = Annotated[float, Field(ge=0, le=1)]
_ROUNDING = 1e-6
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
        answers = as_authored(answers)
        keys = [key(self.name, self.version, answer) for answer in answers]
        # Only now: to name a judge, as a dry run does, writes nothing.
        with closing(_database(self.file)) as database:
            known = dict(_stored(database, keys))
            # Reversed, so that of equal answers the first one stays, and is the one that is paid.
            first = {k: index for index, k in reversed(list(enumerate(keys))) if k not in known}
            asked = sorted(first.values())
            new: dict[str, Verdict] = {}
            for position, verdict in self.inner.verdicts([answers[index] for index in asked]):
                address = keys[asked[position]]
                new[address] = verdict
                if not verdict.failed:
                    _keep(database, address, verdict)
        paid_now = set(asked)
        return [
            known[k] if k in known else new[k] if index in paid_now else replace(new[k], cached=True)
            for index, k in enumerate(keys)
        ]


def _database(file: Path) -> sqlite3.Connection:
    """The verdicts that are kept; a file that is none is put aside, and where nothing can be written they are few."""
    for again in (True, False):
        try:
            return _connected(file)
        except ERRORS as error:
            if not (again and is_damage(error)):
                logger.warning("verdicts are not kept in %s: %s", file, one_line(error))
                break
            aside = file.with_name(f"{file.name}.damaged")
            file.replace(aside)
            for rest in ("-wal", "-shm"):  # of a database that is no longer there
                file.with_name(file.name + rest).unlink(missing_ok=True)
            logger.warning("%s is damaged (%s): put aside as %s, and begun anew", file, one_line(error), aside.name)
    database = sqlite3.connect(":memory:")
    database.execute(_TABLE)
    return database


def _connected(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(file, timeout=_SECONDS)
    try:
        database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
        # What is written outlives the process; a power cut may take the last seconds, and never the rest.
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(_TABLE)
        database.execute("SELECT key FROM verdicts LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _keep(database: sqlite3.Connection, address: str, verdict: Verdict) -> None:
    try:
        with database:  # a transaction each: a crash loses no verdict that was paid for
            database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (address, _packed(verdict)))
    except ERRORS as error:  # a full disk, a page that is damaged: the verdict itself is had
        logger.warning("a verdict is not kept: %s", one_line(error))


def _stored(database: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    addresses = list(dict.fromkeys(keys))
    for start in range(0, len(addresses), _AT_ONCE):
        some = addresses[start : start + _AT_ONCE]
        query = f"SELECT key, verdict FROM verdicts WHERE key IN ({', '.join('?' * len(some))})"
        try:
            rows = database.execute(query, some).fetchall()
        except ERRORS:  # a damaged page: what it held is asked for again
            continue
        for address, text in rows:
            verdict = _unpacked(text)
            if verdict is not None:
                yield address, verdict


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


def _unpacked(text: object) -> Verdict | None:
    """A verdict as it was kept; None of what is damaged or impossible, which is asked for again."""
    try:
        stored = _Kept.model_validate_json(text if isinstance(text, str | bytes) else "")
        return Verdict(
            stored.label,
            stored.probabilities,
            stored.intensity,
            stored.reason,
            spent=Spent(*stored.spent),
            cached=True,
        )
    except ValueError:
        return None


class _Kept(BaseModel):
    """A verdict on disk."""

    model_config = ConfigDict(allow_inf_nan=False)

    label: Label
    probabilities: tuple[_Share, _Share, _Share] | None
    intensity: float | None
    reason: str
    spent: tuple[int, int, float]

    @model_validator(mode="after")
    def _is_possible(self) -> _Kept:
        if self.probabilities is None:
            possible = self.label in (Label.REFUSAL, Label.UNSCORED)
        else:
            possible = (
                abs(sum(self.probabilities) - 1) < _ROUNDING and Verdict.of(self.probabilities).label is self.label
            )
        if not possible:
            raise ValueError("probabilities that are none of this label's")
        return self
