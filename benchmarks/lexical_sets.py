"""What the offline judge reads of texts that people labelled: coverage, kappa and recall for every set of a folder.

python benchmarks/lexical_sets.py FOLDER --pattern "*_test.csv"
python benchmarks/lexical_sets.py FOLDER --pattern "*_train.csv" --rows 250

A set is a csv file with the columns proposition, prompt, response and label (support, neutral, oppose, refusal).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.metrics import cohen_kappa_score

from valuedrift_mlflow.judges import labelled, load
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.stances import Answer, Label

LABELS = ("support", "neutral", "oppose", "refusal")


def read(path: Path, rows: int) -> tuple[list[Answer], list[str]]:
    """The answers of a set and their labels; a sample of ``rows`` where that is not 0."""
    table = pd.read_csv(path, keep_default_na=False)
    if rows and len(table) > rows:
        table = table.sample(rows, random_state=0)
    polarity = [
        int(float(value)) if str(value).strip() else None
        for value in table.get("polarity", pd.Series([""] * len(table)))
    ]
    texts = zip(table.proposition, table.prompt, table.response, polarity, strict=True)
    return [Answer(*row) for row in texts], list(table.label)


def report(name: str, gold: Sequence[str], found: Sequence[str]) -> str:
    """One line: size, coverage, kappa of the scored, recall of each label."""
    known = [(g, f) for g, f in zip(gold, found, strict=True) if g in LABELS]
    scored = [(g, f) for g, f in known if f != Label.UNSCORED.value]
    kappa = (
        cohen_kappa_score(*zip(*scored, strict=True)) if len({label for pair in scored for label in pair}) > 1 else 0
    )
    sizes = Counter(g for g, _ in known)
    hits = Counter(g for g, f in known if g == f)
    recall = " ".join(f"{label} {hits[label] / sizes[label]:.2f}" for label in LABELS if sizes[label])
    return f"{name:24} {len(known):5} coverage {len(scored) / len(known):.3f} kappa {kappa:5.2f}  recall {recall}"


def refusals(name: str, gold: Sequence[str], found: Sequence[str]) -> str:
    """One line on a set that tells refusals alone."""
    alarms = [f == "refusal" for g, f in zip(gold, found, strict=True) if g == "not refusal"]
    hits = [f == "refusal" for g, f in zip(gold, found, strict=True) if g == "refusal"]
    rates = sum(hits) / len(hits), sum(alarms) / len(alarms)
    return f"{name:24} {len(gold):5} refusals found {rates[0]:.2f} false alarms {rates[1]:.3f}"


def table(judge: Judge, folder: Path, pattern: str, rows: int) -> None:
    """Print a line for each set, the check set of the package first."""
    own = labelled.load_answers("check")
    sets = [("check set", [row.answer for row in own], [row.label.value for row in own])]
    sets += [(path.stem, *read(path, rows)) for path in sorted(folder.glob(pattern))]
    for name, answers, gold in sets:
        found = [verdict.label.value for verdict in judge.judge(answers)]
        print((refusals if "not refusal" in gold else report)(name, gold, found), flush=True)


def main() -> None:
    """Parse the flags and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", default="*.csv")
    parser.add_argument("--rows", type=int, default=0, help="at most so many rows of a set, drawn by chance")
    arguments = parser.parse_args()
    table(load("lexical"), arguments.folder, arguments.pattern, arguments.rows)


if __name__ == "__main__":
    main()
