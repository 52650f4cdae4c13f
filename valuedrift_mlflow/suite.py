"""Suites: topics, propositions and the prompts that probe them. Loaded, validated, versioned and hashed here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valuedrift_mlflow import opposed
from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.tables import ENDINGS, ending, read_table
from valuedrift_mlflow.inputs.uris import split_options, topics_of, whole_number

COLUMNS = ("item_id", "topic", "proposition_id", "proposition", "phrasing", "prompt", "polarity")
PHRASINGS = ("direct", "should", "statement", "reversed", "advice")
BUILT_IN = "vaes"
VAES_VERSION = "1.1"
_NEEDED = tuple(column for column in COLUMNS if column not in ("phrasing", "proposition_id"))
_TOPIC = re.compile(r"[a-z][a-z0-9_]*")
_OPTIONS = ("topics", "per_topic", "topic_column")
PRISM_PREFIX = "prism:"
_FILES = "a csv, jsonl, json or parquet file (.csv.gz and .jsonl.gz too)"
_ONLY_PAIRS = "topic_column is for opposed pairs"


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
    """A validated list of items with the name, version and hash that every result records.

    ``source`` is the URI it was loaded from, with its options; ``provenance`` says how it was built, where it was.
    """

    name: str
    version: str
    items: tuple[Item, ...]
    source: str
    provenance: Mapping[str, str] = field(default_factory=dict, compare=False)

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

    @property
    def identity(self) -> str:
        """How results name their suite: ``vaes?per_topic=5@1.0#HASH``. Equal hashes mean equal items."""
        return f"{self.source}@{self.version}#{self.hash}"

    def describe(self) -> dict[str, str]:
        """What every evaluation records of its suite and of the part taken from it."""
        return {
            "suite.name": self.name,
            "suite.uri": self.source,
            "suite.version": self.version,
            "suite.hash": self.hash,
            "suite.items": str(len(self.items)),
            **{f"suite.provenance.{key}": value for key, value in self.provenance.items()},
        }

    def subset(self, topics: tuple[str, ...] | None, per_topic: int | None) -> Suite:
        """Keep some topics, and of each topic ``per_topic`` items, spread over its propositions and phrasings.

        Neighbours that ask the same proposition in the same phrasing from both sides are taken together (acquiescence
        needs both); an odd ``per_topic`` cuts the last such pair.

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
            kept += own if per_topic is None else _spread(own, per_topic)
        return replace(self, items=tuple(kept))


def _spread(items: Sequence[Item], size: int) -> list[Item]:
    """``size`` items, or all where there are fewer: every proposition in turn, each in another phrasing."""
    propositions: dict[str, list[list[Item]]] = {}
    for unit in _units(items):
        propositions.setdefault(unit[0].proposition_id, []).append(unit)
    own = list(propositions.values())
    for take in range(1, len(own)):  # fewer items than propositions: those taken lie evenly over the list
        spaced = [own[i * len(own) // take] for i in range(take)]
        if sum(len(units[0]) for units in spaced) >= size:
            own = spaced
            break
    turns = (
        units[(turn + place) % len(units)]
        for turn in range(max(map(len, own)))
        for place, units in enumerate(own)
        if turn < len(units)
    )
    kept = {item.item_id for item in [item for unit in turns for item in unit][:size]}
    return [item for item in items if item.item_id in kept]


def _units(items: Sequence[Item]) -> list[list[Item]]:
    """The items one by one, but both sides of an opposed pair together."""
    units: list[list[Item]] = []
    for item in items:
        before = units[-1][0] if units and len(units[-1]) == 1 else None
        if before is not None and (before.proposition_id, before.phrasing, -before.polarity) == (
            item.proposition_id,
            item.phrasing,
            item.polarity,
        ):
            units[-1].append(item)
        else:
            units.append([item])
    return units


def load(uri: str = BUILT_IN) -> Suite:
    """Load a suite: ``vaes``, a file, or ``prism:PATH`` (built by ``prism.load``).

    A file is csv, jsonl, json or parquet (``.csv.gz`` and ``.jsonl.gz`` too). It has the columns of ``Suite.frame()``,
    or it holds opposed pairs (``opposed.items``), with the columns ``stance_a``, ``stance_b``, ``prompt_a`` and
    ``prompt_b``.

    Options after ``?`` take a part of a suite: ``topics=abortion,religion`` and ``per_topic=5``. For opposed pairs
    ``topic_column=NAME`` says which column holds the topic.

    Raises:
        InputError: a missing file, missing columns or bad rows (each with its number), an unknown topic or option.
    """
    if uri.startswith(PRISM_PREFIX):
        from valuedrift_mlflow import prism

        return prism.load(uri)
    name, options = split_options(uri)
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise InputError(problem(f"suite {uri}", ", ".join(unknown), "the options " + ", ".join(_OPTIONS)))
    topics = topics_of(options)
    per_topic = whole_number(uri, "per_topic", options["per_topic"]) if "per_topic" in options else None
    if name == BUILT_IN:
        if "topic_column" in options:
            raise InputError(problem(f"suite {uri}", "topic_column", "topics, per_topic", _ONLY_PAIRS))
        resource = files("valuedrift_mlflow").joinpath("suites/vaes.csv")
        with resource.open(encoding="utf-8") as handle:
            suite = from_frame(pd.read_csv(handle, dtype=str, keep_default_na=False), BUILT_IN, VAES_VERSION)
    else:
        suite = _from_file(Path(name), options.get("topic_column"))
    return replace(suite.subset(topics, per_topic), source=uri)


def _from_file(path: Path, topic_column: str | None) -> Suite:
    name = Path(path.name.removesuffix(".gz")).stem
    frame = _read(path)
    if set(_NEEDED) <= set(frame.columns) or not opposed.is_opposed(frame):
        if topic_column is not None:
            found = ", ".join(map(str, frame.columns))
            raise InputError(problem(f"suite {path}", found, f"the columns {', '.join(opposed.COLUMNS)}", _ONLY_PAIRS))
        return from_frame(frame, name, "file")
    if frame.empty:
        raise InputError(problem(f"suite {name}", "no rows", "at least one pair"))
    try:
        both_sides = opposed.items(frame, name, topic_column)
    except InputError as error:
        raise InputError(limited(error.problems, f"suite {name}")) from None
    return from_frame(both_sides, name, "file")


def _read(path: Path) -> pd.DataFrame:
    path = path.expanduser()
    if not path.is_file():
        raise InputError(problem("suite", str(path), f"{BUILT_IN}, {PRISM_PREFIX}PATH or an existing {_FILES[2:]}"))
    if ending(path) not in ENDINGS:
        raise InputError(problem("suite", str(path), _FILES))
    return read_table(path, f"suite {path}", f"a readable {_FILES[2:]}")


def from_frame(frame: pd.DataFrame, name: str, version: str = "frame", source: str = "frame") -> Suite:
    """Validate a table with the suite's columns. ``phrasing`` and ``proposition_id`` may be missing.

    Raises:
        InputError: every problem of the table at once, with row numbers (the first data row is 1).
    """
    frame = frame.reset_index(drop=True).astype(object)
    frame = frame.where(frame.notna(), "")  # a cell that is missing reads as one that is empty
    if frame.empty:
        raise InputError(problem(f"suite {name}", "no rows", "at least one item"))
    if not set(_NEEDED) <= set(frame.columns):
        allowed = f"the columns {', '.join(COLUMNS)}; in a file also opposed pairs: {', '.join(opposed.COLUMNS)}"
        raise InputError(problem(f"suite {name}", ", ".join(map(str, frame.columns)), allowed))
    problems: list[str] = []
    items: list[Item] = []
    seen: dict[str, int] = {}
    for row, record in enumerate(frame.to_dict("records"), start=1):
        where = f"suite {name} row {row}"
        text = {column: str(record.get(column, "")).strip() for column in COLUMNS}
        for column in ("item_id", "proposition", "prompt"):
            if not text[column] or (column != "item_id" and not isinstance(record[column], str)):
                problems.append(problem(f"{where} {column}", record[column], "a text that is not empty"))
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
        raise InputError(limited(problems, f"suite {name}"))
    return Suite(name=name, version=version, items=tuple(items), source=source)
