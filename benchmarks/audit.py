"""How fast an audit reads preference pairs, and whether its memory grows with them.

python benchmarks/audit.py
python benchmarks/audit.py --rows 2000 16000

The pairs are those of HH-RLHF's harmless test split, repeated with one word in twelve exchanged, so that no text comes
twice. Each size is audited in a process of its own, from opening the file to the last interval; the peak of memory is
that of all processes, which up to 4,000 pairs have no second of. The peer reads the same
responses with scikit-learn's TF-IDF and logistic regression (``predict_proba``), which knows nothing of propositions.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from processes import peak_megabytes

from valuedrift_mlflow.report.display import Display

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"
PAIRS_A_SECOND, GIGABYTES, GROWTH = 8_000, 1.5, 1.1
EXCHANGED = 1 / 12  # share of words
RESPONSES = 4_000  # that the judge and its peer read
WORD = re.compile(r"\b[a-z]{4,}\b")


def varied(path: Path, rows: int) -> Iterator[dict[str, str]]:
    """The rows of the file again and again; from the second time on with exchanged words, the same on both sides."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        real = [json.loads(line) for line in file]
    known = sorted({word for row in real for word in WORD.findall(row["chosen"])})
    rng = np.random.default_rng(0)
    for number in range(rows):
        row = real[number % len(real)]
        if number >= len(real):
            words = WORD.findall(row["chosen"] + row["rejected"])
            places = rng.integers(len(words), size=max(1, int(len(words) * EXCHANGED)))
            others = rng.integers(len(known), size=len(places))
            exchange = {words[place]: known[other] for place, other in zip(places, others, strict=True)}
            row = {
                side: WORD.sub(lambda match, new=exchange: new.get(match.group(), match.group()), text)
                for side, text in row.items()
            }
        yield row


def write(path: Path, real: Path, rows: int) -> None:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in varied(real, rows))


def audit_alone(path: str) -> None:
    """In a process of its own: audit a file, print what it took."""
    from valuedrift_mlflow.value_gap import audit

    start = time.perf_counter()
    prepared = audit.prepare(path, "lexical")
    found = audit.examine(prepared.data, prepared.data.kind, prepared.judge, prepared.matcher)
    seconds = time.perf_counter() - start
    taken = {"rows": found.rows, "seconds": seconds, "gigabytes": peak_megabytes() / 1e3}
    print(
        json.dumps(
            taken
            | {"touched": found.overall.touched, "judged": found.overall.judged, "unscored": found.overall.unscored}
        )
    )


def audited(path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    taken: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return taken


def compare_readers(path: Path) -> None:
    """Responses a second of the lexical judge, and of scikit-learn over the same texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from valuedrift_mlflow import judges
    from valuedrift_mlflow.data.datasets import stream
    from valuedrift_mlflow.data.settings import Data
    from valuedrift_mlflow.embedded import corpus
    from valuedrift_mlflow.stances import Answer
    from valuedrift_mlflow.suite.questions import propositions
    from valuedrift_mlflow.value_gap.matching import question, response

    rows = islice(stream(Data(uri=str(path))), RESPONSES // 2)
    known = propositions()
    answers = [
        Answer(known[number % len(known)].text, question(row)[-300:], response(row[side]), None)
        for number, row in enumerate(rows)
        for side in ("chosen", "rejected")
    ]
    labelled = corpus.rows("embedded:sft?size=2000")
    texts = [row["messages"][-1]["content"] for row in labelled]
    peer = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=500))
    peer.fit(texts, [row["stance"] for row in labelled])
    judge = judges.load("lexical")
    judge.judge([Answer(known[0].text, "Is it right?", "Yes.", None)])  # it is fitted on first use
    speeds = {}
    for name, read in (
        ("lexical judge", lambda: judge.judge(answers)),
        ("scikit-learn predict_proba", lambda: peer.predict_proba([answer.response for answer in answers])),
    ):
        start = time.perf_counter()
        read()
        speeds[name] = len(answers) / (time.perf_counter() - start)
    judged, peers = speeds.values()
    cells = [[name, f"{speed:,.0f}"] for name, speed in speeds.items()]
    Display().table(f"{len(answers):,} responses", ("reader", "responses a second"), cells)
    print(
        f"lexical judge / scikit-learn {judged / peers:.3f}; an audit asks the judge only where a row touches a topic"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of an audit.")
    parser.add_argument("--data", type=Path, default=REAL, help="HH-RLHF pairs, jsonl.gz")
    parser.add_argument("--rows", type=int, nargs="+", default=[32_000, 160_000], help="sizes, the smallest first")
    parser.add_argument("--cores", type=int, default=2, help="cores that everything is pinned to")
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        audit_alone(arguments.alone)
        return
    if not arguments.data.is_file():
        sys.exit(f"{arguments.data} is missing: name another file with --data")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    os.environ["OMP_NUM_THREADS"] = str(arguments.cores)
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        taken = []
        for rows in arguments.rows:
            path = Path(scratch, f"{rows}.jsonl.gz")
            write(path, arguments.data, rows)
            taken.append(audited(path))
        compare_readers(Path(scratch, f"{arguments.rows[0]}.jsonl.gz"))
    cells = [
        [
            f"{one['rows']:,}",
            f"{one['seconds']:.1f}",
            f"{one['rows'] / one['seconds']:,.0f}",
            f"{one['gigabytes']:.2f}",
            f"{one['touched']:,}",
            f"{one['judged']:,}",
            f"{one['unscored']:,}",
        ]
        for one in taken
    ]
    columns = ("pairs", "seconds", "pairs a second", "peak GB", "touch a topic", "responses judged", "unscored")
    Display().table(f"Audit on {arguments.cores} cores, lexical judge", columns, cells)
    last, growth = taken[-1], taken[-1]["gigabytes"] / taken[0]["gigabytes"]
    fast, small = last["rows"] / last["seconds"] >= PAIRS_A_SECOND, last["gigabytes"] < GIGABYTES
    print(
        f"at least {PAIRS_A_SECOND:,} pairs a second: {'met' if fast else 'NOT MET'}; "
        f"peak memory under {GIGABYTES} GB: {'met' if small else 'NOT MET'}; "
        f"memory at {last['rows']:,} / at {taken[0]['rows']:,} pairs: {growth:.2f} "
        f"(flat, up to {GROWTH}: {'met' if growth <= GROWTH else 'NOT MET'})"
    )


if __name__ == "__main__":
    main()
