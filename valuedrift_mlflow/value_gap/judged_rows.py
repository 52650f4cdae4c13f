"""A judged row of an audit: as numbers, as a person wants to see it, and for people to label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.stances import LABELS, Verdict
from valuedrift_mlflow.statistics.value_gap import held, probabilities
from valuedrift_mlflow.value_gap.findings import Side
from valuedrift_mlflow.value_gap.matching import response, user_turns
from valuedrift_mlflow.value_gap.propositions import Proposition

SHOWN = 1_000  # characters of a text in a table


def side_of(verdicts: Sequence[Verdict]) -> Side:
    """The verdicts on one side of all rows, as arrays."""
    return Side(
        np.array([held(verdict) for verdict in verdicts]),
        np.array([probabilities(verdict) for verdict in verdicts]),
        np.array([LABELS.index(verdict.label) for verdict in verdicts], dtype=np.int8),
    )


def asked(row: Row) -> str:
    """The last message of a user before the last answer."""
    return next(reversed(user_turns(row)), "")


def fingerprint(prompt: Sequence[Mapping[str, str]]) -> int:
    """A number for a prompt: intervals need to know which are the same, and nothing else of them."""
    text = "\x1e".join(f"{message['role']}\x1f{message['content']}" for message in prompt)
    # Eight bytes: of a million prompts two share a number with a probability of 3e-8.
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), signed=True)


def record_of(row: Row, proposition: Proposition, columns: Sequence[str], labels: Sequence[int]) -> Record:
    """A row as a person wants to see it."""
    record = {
        "topic": proposition.topic,
        "proposition_id": proposition.proposition_id,
        "proposition": proposition.text,
        "prompt": asked(row)[:SHOWN],
    }
    for column, label in zip(columns, labels, strict=True):
        record[column] = response(row[column])[:SHOWN]
        record[f"{column}_verdict"] = LABELS[label].value
    return record


def to_label(row: Row, proposition: Proposition, columns: Sequence[str]) -> Record:
    """A row without the judge's verdicts, for people to label."""
    record: Record = {"row": row["row"], "turn": row["turn"], "topic": proposition.topic}
    record |= {"proposition": proposition.text, "prompt": asked(row)[:SHOWN]}
    for column in columns:
        record |= {column: response(row[column])[:SHOWN], f"{column}_label": ""}
    return record | {"weight": 1.0}
