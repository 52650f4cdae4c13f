"""Verdicts that were paid for once: kept on disk under a hash of everything that made them."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import BaseModel, ConfigDict, Field

from valuedrift_mlflow.inputs.databases import ERRORS, is_damage
from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.judges.authored import as_authored, filter_version
from valuedrift_mlflow.judges.judge import CostlyJudge
from valuedrift_mlflow.stances import Answer, Label, Spent, Verdict, most_probable

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


def key(judge: str, version: str, answer: Answer, unfiltered: str = "") -> str:
    """The content address of one verdict: SHA-256 over judge, version and what a model is shown of the answer.

    ``unfiltered``: the version of the filter that the answer has yet to pass, where it is addressed as it was given.
    """
    # Not the polarity, which these judges are not told: an audit asks without it about what a synthesis has judged
    # with it. The 1 in its place keeps most of the verdicts of earlier versions.
    last = _AS_JSON(unfiltered) if unfiltered else "1"
    parts = (judge, version, answer.proposition, answer.prompt, answer.response)
    # As JSON writes a list, piece by piece: a string alone is written many times as fast as a list of them.
    return hashlib.sha256(f"[{', '.join(map(_AS_JSON, parts))}, {last}]".encode()).hexdigest()


class CachedJudge:
    """A judge that asks another one only what it was never asked before.

    A verdict is kept under two addresses. That of the answer as it was given is looked up first, since an answer takes
    longer to filter than to find. That of what its author says is shared by all answers that say the same.

    Every verdict is written as soon as it arrives, so that what was paid for survives a crash; answers of one batch
    that say the same are asked once. Verdicts that failed are not kept: they are asked again next time.
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
        version, unfiltered = self.version, filter_version()
        given = [key(self.name, version, answer, unfiltered) for answer in answers]
        # Only now: to name a judge, as a dry run does, writes nothing.
        with closing(_database(self.file)) as database:
            verdicts = dict(_stored(database, given))
            new = {address: answer for address, answer in zip(given, answers, strict=True) if address not in verdicts}
            found = dict(zip(new, self._filtered(database, version, list(new.values())), strict=True))
            with suppress(*ERRORS):  # nothing was paid for this: what is not kept is filtered again
                _keep(database, found)
        return _paid_once(given, verdicts | found)

    def _filtered(self, database: sqlite3.Connection, version: str, answers: Sequence[Answer]) -> list[Verdict]:
        """The verdicts on what the authors of answers say: those that are kept, and the judge's on the others."""
        said = as_authored(answers)
        keys = [key(self.name, version, answer) for answer in said]
        verdicts = dict(_stored(database, keys))
        asked = {address: answer for address, answer in zip(keys, said, strict=True) if address not in verdicts}
        addresses = list(asked)
        for position, verdict in self.inner.verdicts(list(asked.values())):
            verdicts[addresses[position]] = verdict
            try:  # a transaction each: a crash loses no verdict that was paid for
                _keep(database, {addresses[position]: verdict})
            except ERRORS as error:  # a full disk, a page that is damaged: the verdict itself is had
                logger.warning("a verdict is not kept: %s", one_line(error))
        return _paid_once(keys, verdicts)


def _paid_once(addresses: Sequence[str], verdicts: Mapping[str, Verdict]) -> list[Verdict]:
    """The verdict of each address; where one comes again, it cost nothing any more."""
    seen: set[str] = set()
    found = []
    for address in addresses:
        verdict = verdicts[address]
        found.append(replace(verdict, cached=True) if address in seen and not verdict.cached else verdict)
        seen.add(address)
    return found


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


def _keep(database: sqlite3.Connection, verdicts: Mapping[str, Verdict]) -> None:
    """Write verdicts, all of them or none."""
    rows = [(address, _packed(verdict)) for address, verdict in verdicts.items() if not verdict.failed]
    with database:
        database.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", rows)


def _stored(database: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    addresses = list(dict.fromkeys(keys))
    for start in range(0, len(addresses), _AT_ONCE):
        some = addresses[start : start + _AT_ONCE]
        # As bytes: a text that is none any more costs its own row alone.
        query = f"SELECT key, CAST(verdict AS BLOB) FROM verdicts WHERE key IN ({', '.join('?' * len(some))})"
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
        kept = _Kept.model_validate_json(text if isinstance(text, bytes) else "")
    except ValueError:
        return None
    shares = kept.probabilities
    if shares is None:
        possible = kept.label in (Label.REFUSAL, Label.UNSCORED)
    else:
        possible = abs(sum(shares) - 1) < _ROUNDING and most_probable(shares) is kept.label
    if not possible:
        return None
    return Verdict(kept.label, shares, kept.intensity, kept.reason, spent=Spent(*kept.spent), cached=True)


class _Kept(BaseModel):
    """A verdict on disk."""

    model_config = ConfigDict(allow_inf_nan=False)

    label: Label
    probabilities: tuple[_Share, _Share, _Share] | None
    intensity: float | None
    reason: str
    spent: tuple[int, int, float]
