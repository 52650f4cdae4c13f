"""Suites: topics, propositions and the prompts that probe them. Loaded, validated, versioned and hashed here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valuedrift_mlflow.errors import InputError, problem
from valuedrift_mlflow.uris import split_options

COLUMNS = ("item_id", "topic", "proposition_id", "proposition", "phrasing", "prompt", "polarity")
PHRASINGS = ("direct", "should", "statement", "reversed", "advice")
BUILT_IN = "vaes"
VAES_VERSION = "1.0"
_TOPIC = re.compile(r"[a-z][a-z0-9_]*")
_OPTIONS = ("topics", "per_topic")


@dataclass(frozen=True)
class Item:
    """One prompt of a suite. ``polarity`` is +1 where agreeing with the prompt supports the proposition, else -1."""

    item_id: str
    topic: str
    proposition_id: str
    proposition: str
    phrasing: str
    prompt: str
    polarity: int


@dataclass(frozen=True)
class Suite:
    """A validated list of items with the name, version and hash that every result records."""

    name: str
    version: str
    items: tuple[Item, ...]
    source: str

    @cached_property
    def hash(self) -> str:
        """SHA-256 over every field of every item in order, first 16 hex digits."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update("\x1f".join(str(getattr(item, column)) for column in COLUMNS).encode() + b"\x1e")
        return digest.hexdigest()[:16]

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Topic slugs in order of first appearance."""
        return tuple(dict.fromkeys(item.topic for item in self.items))

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Topic index of every item, shape (N,)."""
        index = {topic: i for i, topic in enumerate(self.topics)}
        return np.array([index[item.topic] for item in self.items], dtype=np.int64)

    def frame(self) -> pd.DataFrame:
        """The items as a table with the columns of the suite file."""
        return pd.DataFrame(
            [[getattr(item, column) for column in COLUMNS] for item in self.items], columns=list(COLUMNS)
        )

    def describe(self) -> dict[str, str]:
        """What every evaluation records of its suite."""
        return {
            "suite.name": self.name,
            "suite.version": self.version,
            "suite.hash": self.hash,
            "suite.items": str(len(self.items)),
        }

    def subset(self, topics: tuple[str, ...] | None, per_topic: int | None) -> Suite:
        """Keep some topics, and of each topic ``per_topic`` items spread evenly over its list.

        Raises:
            InputError: an unknown topic, or ``per_topic`` out of range.
        """
        problems = [
            problem(f"suite {self.name} topics", topic, ", ".join(self.topics))
            for topic in topics or ()
            if topic not in self.topics
        ]
        if per_topic is not None and per_topic < 1:
            problems.append(problem(f"suite {self.name} per_topic", per_topic, "a whole number of at least 1"))
        if problems:
            raise InputError(problems)
        kept: list[Item] = []
        for topic in topics or self.topics:
            own = [item for item in self.items if item.topic == topic]
            take = min(per_topic or len(own), len(own))
            kept += [own[i * len(own) // take] for i in range(take)]
        return replace(self, items=tuple(kept))


def load(uri: str = BUILT_IN) -> Suite:
    """Load a suite: ``vaes`` or a csv, jsonl or parquet file with the same columns.

    Options after ``?`` take a part of it: ``topics=abortion,religion`` and ``per_topic=5``.

    Raises:
        InputError: a missing file, missing columns or bad rows (each with its number), an unknown topic or option.
    """
    name, options = split_options(uri)
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise InputError(problem(f"suite {uri}", ", ".join(unknown), "the options " + ", ".join(_OPTIONS)))
    topics = tuple(dict.fromkeys(options["topics"].split(","))) if "topics" in options else None
    per_topic = None
    if "per_topic" in options:
        if not options["per_topic"].isdecimal():
            raise InputError(problem(f"suite {uri} per_topic", options["per_topic"], "a whole number of at least 1"))
        per_topic = int(options["per_topic"])
    if name == BUILT_IN:
        resource = files("valuedrift_mlflow").joinpath("suites/vaes.csv")
        with resource.open(encoding="utf-8") as handle:
            suite = from_frame(pd.read_csv(handle, dtype=str, keep_default_na=False), BUILT_IN, VAES_VERSION, BUILT_IN)
    else:
        suite = from_frame(_read(Path(name)), Path(name).stem, "file", name)
    return suite.subset(topics, per_topic) if options else suite


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(problem("suite", str(path), f"{BUILT_IN} or an existing csv, jsonl or parquet file"))
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix in {".jsonl", ".json"}:
            return pd.read_json(path, lines=path.suffix == ".jsonl", dtype=False)
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(problem(f"suite {path}", str(error), "a readable csv, jsonl or parquet file")) from None


def from_frame(frame: pd.DataFrame, name: str, version: str = "frame", source: str = "frame") -> Suite:
    """Validate a table with the suite's columns. ``phrasing`` and ``proposition_id`` may be missing.

    Raises:
        InputError: every problem of the table at once, with row numbers (the first data row is 1).
    """
    frame = frame.reset_index(drop=True).astype(object)
    frame = frame.where(frame.notna(), "")  # a cell that is missing reads as one that is empty
    needed = [column for column in COLUMNS if column not in ("phrasing", "proposition_id")]
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise InputError(
            problem(f"suite {name}", ", ".join(map(str, frame.columns)), "the columns " + ", ".join(COLUMNS))
        )
    if frame.empty:
        raise InputError(problem(f"suite {name}", "no rows", "at least one item"))
    problems: list[str] = []
    items: list[Item] = []
    seen: dict[str, int] = {}
    for row, record in enumerate(frame.to_dict("records"), start=1):
        where = f"suite {name} row {row}"
        text = {column: str(record.get(column, "")).strip() for column in COLUMNS}
        for column in ("item_id", "proposition", "prompt"):
            if not text[column]:
                problems.append(problem(f"{where} {column}", record.get(column), "a text that is not empty"))
        if not _TOPIC.fullmatch(text["topic"]):
            problems.append(problem(f"{where} topic", text["topic"], "a slug such as climate_change"))
        polarity = {"1": 1, "+1": 1, "1.0": 1, "-1": -1, "-1.0": -1}.get(text["polarity"])
        if polarity is None:
            problems.append(problem(f"{where} polarity", record.get("polarity"), "1 or -1"))
        if text["item_id"] and text["item_id"] in seen:
            problems.append(
                problem(f"{where} item_id", text["item_id"], f"an id of its own (row {seen[text['item_id']]})")
            )
        seen.setdefault(text["item_id"], row)
        items.append(
            Item(
                item_id=text["item_id"],
                topic=text["topic"],
                proposition_id=text["proposition_id"] or text["item_id"],
                proposition=text["proposition"],
                phrasing=text["phrasing"] or "unnamed",
                prompt=text["prompt"],
                polarity=polarity or 1,
            )
        )
    if problems:
        raise InputError(problems)
    return Suite(name=name, version=version, items=tuple(items), source=source)
