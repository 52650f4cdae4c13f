"""How rightly an audit finds what real pairs are about: python benchmarks/matching.py.

300 rows of HH-RLHF's harmless test split were labelled blind (``tests/value_gap/hh_labels.csv``: number of the row in
the file from 1, topic, proposition; empty where there is none). One reader read them in random order, the last question
with the turns before it and the beginnings of the answers, and did not see what is found in them. A topic is what a row
is about as a contested matter; a proposition is one that an answer to the question takes a stance on. The rows are
the 118 of the file in which the words find a proposition or topic, or MiniLM a proposition at a cosine of 0.50, and
182 of the 215 others whose question has a contested word ("police", "tax", "women", ...), drawn with seed 2026. So
precision is that of the whole file. Recall is of these rows, and the file may have more that nothing finds.

The odd rows of the table were read to see whether a threshold or a rule does better; of the even ones only counts were
seen.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.models.encoder import MINILM, check_embedder
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.statistics.intervals import share
from valuedrift_mlflow.value_gap import matching, views

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"
LABELS = ROOT / "tests" / "value_gap" / "hh_labels.csv"
THRESHOLDS = (0.6, 0.55)
HALVES = {"all": slice(None), "odd, looked at": slice(0, None, 2), "even, not looked at": slice(1, None, 2)}


@dataclass(frozen=True, slots=True)
class Touched:
    """What rows touch, as labelled or as found, one of each per row; empty where nothing."""

    topics: Sequence[str]
    propositions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Score:
    """Rows in which something was found, of those rightly, and rows that should have been found."""

    found: int
    right: int
    wanted: int


def labelled_rows(data: Path) -> tuple[list[Row], Touched]:
    """The labelled rows of the file of pairs, and their labels.

    Raises:
        InputError: the file is another one: a row is missing or cannot be read.
    """
    with gzip.open(data, "rt", encoding="utf-8") as file:
        lines = list(file)
    labels = list(csv.DictReader(LABELS.read_text(encoding="utf-8").splitlines()))
    if len(lines) < max(int(label["row"]) for label in labels):
        raise InputError(f"{data} has {len(lines)} rows, fewer than were labelled")
    with tempfile.TemporaryDirectory(prefix="valuedrift-labelled-") as scratch:
        own = Path(scratch, "labelled.jsonl")
        own.write_text("".join(lines[int(label["row"]) - 1] for label in labels), encoding="utf-8")
        rows: list[Row] = list(datasets.stream(Data(uri=str(own))))
    if len(rows) != len(labels):
        raise InputError(f"{data}: {len(rows)} of {len(labels)} labelled rows could be read")
    return rows, Touched([label["topic"] for label in labels], [label["proposition"] for label in labels])


def touched(matcher: matching.Matcher, rows: Sequence[Row]) -> Touched:
    """What a matcher finds in rows."""
    found = matcher.match(rows)
    return Touched(
        [matcher.topics[at] if at >= 0 else "" for at in found.topic.tolist()],
        [matcher.propositions[at].proposition_id if at >= 0 else "" for at in found.proposition.tolist()],
    )


def by_encoder_alone(matcher: matching.Matcher, rows: Sequence[Row]) -> Touched:
    """What the encoder of a matcher finds in questions that are not practical, whatever their words find."""
    asked = [matching.question(row) for row in rows]
    nearest, _ = matcher._encoded.nearest(asked)
    known = matcher.propositions
    own = [
        known[at] if at >= 0 and text.strip() and not views.is_practical(text) else None
        for at, text in zip(nearest.tolist(), asked, strict=True)
    ]
    return Touched(
        [found.topic if found else "" for found in own], [found.proposition_id if found else "" for found in own]
    )


def score(found: Sequence[str], wanted: Sequence[str]) -> Score:
    """How many were found, and how many rightly.

    >>> score(["a", "b", "", ""], ["a", "a", "b", ""])
    Score(found=2, right=1, wanted=3)
    """
    right = sum(bool(one) and one == label for one, label in zip(found, wanted, strict=True))
    return Score(sum(map(bool, found)), right, sum(map(bool, wanted)))


def _cells(name: str, half: str, own: Score) -> list[str]:
    precision, recall = share(own.right, own.found), share(own.right, own.wanted)
    return [name, half, str(own.found), str(own.right), str(precision), f"{recall} of {own.wanted}"]


def _minilm_is_here() -> bool:
    try:
        check_embedder(MINILM)
    except InputError as error:
        print(f"words alone: {error}")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="How rightly an audit finds what real pairs are about.")
    parser.add_argument("--data", type=Path, default=REAL, help="HH-RLHF's harmless test pairs, jsonl.gz")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        sys.exit(f"{arguments.data} is missing: name another file with --data")
    rows, labels = labelled_rows(arguments.data)
    suite = suites.load()
    ways = {"words": touched(matching.Matcher(suite), rows)}
    if _minilm_is_here():
        for threshold in THRESHOLDS:
            matching.MINILM_SIMILARITY = threshold
            matcher = matching.Matcher(suite, MINILM)
            ways[f"MiniLM at {threshold:.2f}"] = by_encoder_alone(matcher, rows)
            ways[f"words and MiniLM at {threshold:.2f}"] = touched(matcher, rows)
    columns = ("found by", "rows", "found", "right", "precision [95 %]", "recall [95 %]")
    for title in ("propositions", "topics"):
        cells = [
            _cells(name, half, score(getattr(own, title)[part], getattr(labels, title)[part]))
            for half, part in HALVES.items()
            for name, own in ways.items()
        ]
        Display().table(title, columns, cells)


if __name__ == "__main__":
    main()
