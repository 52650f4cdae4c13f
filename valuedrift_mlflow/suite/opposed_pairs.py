"""Opposed pairs to a suite's items: tables that ask for a stance and for its opposite and name no polarity."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, problem

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("stance_a", "stance_b", "prompt_a", "prompt_b")
TOPIC_COLUMNS = ("topic", "topic_name", "category", "main_category")
_KEY_COLUMNS = ("axis", "direction")
_PHRASING_COLUMNS = ("template_category", "template")
MAX_TOPICS = 80


def is_opposed(frame: pd.DataFrame) -> bool:
    """Whether a table has the columns of opposed pairs."""
    return set(COLUMNS) <= set(frame.columns)


def slug(text: str) -> str:
    """Free text as a topic: lower case, ``_`` for other characters, a letter first; empty where nothing is left.

    >>> slug("SOCIAL & identity"), slug("2020 election")
    ('social_identity', 'topic_2020_election')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    joined = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return f"topic_{joined}" if joined[:1].isdigit() else joined


def sentence(text: str) -> str:
    """A stance as a sentence: a capital, and a full stop where no mark ends it.

    >>> sentence("voting should be compulsory")
    'Voting should be compulsory.'
    """
    bare = text.strip()
    return f"{bare[:1].upper()}{bare[1:]}{'' if bare.endswith(('.', '!', '?')) else '.'}"


def items(frame: pd.DataFrame, name: str, topic_column: str | None = None) -> pd.DataFrame:
    """Two items of every row: ``prompt_a`` with polarity +1 and ``prompt_b`` with -1, both about ``stance_a``.

    The proposition is ``stance_a`` as a sentence; rows of one topic with the same two stances share a
    ``proposition_id``. The phrasing is a slug of ``template_category`` or else of ``template``. ``item_id`` is
    ``TOPIC_0012_a`` for the first prompt of row 12.

    The topic is a slug of ``topic_column``; without it, of the first of ``TOPIC_COLUMNS`` that makes at most 80
    topics. The finest is wanted because stances are averaged over a topic: "abortion" has a side that one can be on,
    "policies" mixes propositions that point anywhere. 80 is the limit because a run logs about a dozen metrics for
    every topic and MLflow's UI shows about 1,000 well. Where each makes more, the one with the fewest is taken; a
    table without any is one topic, named after the suite.

    Args:
        frame: a table with ``COLUMNS``.
        name: the suite's name.
        topic_column: the column that holds the topic.

    Returns:
        A table with the columns of a suite, two rows for each row of ``frame``, in its order; with ``axis`` and
        ``direction`` where ``frame`` has them, which are those of ``stance_a``.

    Raises:
        InputError: an unknown ``topic_column``, empty cells, equal sides or repeated rows, with row numbers.
    """
    import pandas as pd

    # As objects first: a column of numbers takes no empty text in the place of a gap.
    text = frame.reset_index(drop=True).astype(object)
    text = text.where(text.notna(), "").map(lambda cell: str(cell).strip())
    topics = _topics(text, name, topic_column)
    phrasing_column = next((column for column in _PHRASING_COLUMNS if column in text.columns), None)
    key_columns = [column for column in _KEY_COLUMNS if column in text.columns]  # those of stance_a
    problems: list[str] = []
    rows: list[list[object]] = []
    seen: dict[tuple[str, ...], int] = {}
    propositions: dict[tuple[str, str, str], int] = {}
    for row, (topic, record) in enumerate(zip(topics, text.to_dict("records"), strict=True), start=1):
        cells = tuple(record[column] for column in COLUMNS)
        problems += _problems(f"suite {name} row {row}", topic, cells, seen.setdefault(cells, row), row)
        first = propositions.setdefault((topic, record["stance_a"], record["stance_b"]), row)
        phrasing = slug(record[phrasing_column]) if phrasing_column else ""
        about = [topic, f"{topic}_{first:04d}", sentence(record["stance_a"]), phrasing or "unnamed"]
        keys = [record[column] for column in key_columns]
        rows.append([f"{topic}_{row:04d}_a", *about, record["prompt_a"], 1, *keys])
        rows.append([f"{topic}_{row:04d}_b", *about, record["prompt_b"], -1, *keys])
    if problems:
        raise InputError(problems)
    columns = ["item_id", "topic", "proposition_id", "proposition", "phrasing", "prompt", "polarity", *key_columns]
    return pd.DataFrame(rows, columns=columns)


def _topics(text: pd.DataFrame, name: str, topic_column: str | None) -> list[str]:
    if topic_column is not None and topic_column not in text.columns:
        raise InputError(problem(f"suite {name} topic_column", topic_column, ", ".join(map(str, text.columns))))
    columns = [topic_column] if topic_column else [column for column in TOPIC_COLUMNS if column in text.columns]
    if not columns:
        return [slug(name) or "topic"] * len(text)
    by_column = [[slug(cell) for cell in text[column]] for column in columns]
    counts = [len(set(topics)) for topics in by_column]
    fits = [index for index, count in enumerate(counts) if count <= MAX_TOPICS]
    return by_column[fits[0] if fits else counts.index(min(counts))]


def _problems(where: str, topic: str, cells: Sequence[str], first: int, row: int) -> list[str]:
    problems = [
        problem(f"{where} {column}", cell, "a text that is not empty")
        for column, cell in zip(COLUMNS, cells, strict=True)
        if not cell
    ]
    if not topic:
        problems.append(problem(f"{where} topic", topic, "a text with a letter from a to z or a digit"))
    if problems:
        return problems
    for side, (a, b) in {"stance": cells[:2], "prompt": cells[2:]}.items():
        if a == b:
            problems.append(problem(f"{where} {side}_b", b, f"another text than {side}_a"))
    if first != row:
        problems.append(problem(where, "a repeated row", f"every pair once (row {first})", "remove one of the two"))
    return problems
