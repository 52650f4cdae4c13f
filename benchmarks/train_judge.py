"""What a judge reaches that was trained on the labelled answers of this package, beside the offline judge.

python benchmarks/train_judge.py ENCODER --test FOLDER
python benchmarks/train_judge.py ENCODER --test FOLDER --add argkp_train.csv

The answers are those that the offline judge is fitted on, answers of the embedded world, and those of ``--add``. Each
``*_test.csv`` of the folder is a set (columns proposition, prompt, response, label), read by both judges in one run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lexical_sets
import mlflow
import pandas as pd
from sklearn.metrics import cohen_kappa_score

import valuedrift_mlflow
from valuedrift_mlflow import judges
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.judges.judge import Judge
from valuedrift_mlflow.judges.lexical.fitting.answers import fitting_answers, written_answers
from valuedrift_mlflow.stances import Answer
from valuedrift_mlflow.suite.questions import propositions

COLUMNS = ["proposition", "prompt", "response", "label"]
Set = tuple[str, list[Answer], list[str]]


def shipped(composed: int, embedded: int) -> pd.DataFrame:
    """The written answers of the package, a sample of the composed ones, and answers of the embedded world."""
    made = pd.DataFrame(
        [
            (row.answer.proposition, row.answer.prompt, row.answer.response, row.label.value)
            for row in (*written_answers(), *pd.Series(fitting_answers()).sample(composed, random_state=0))
        ],
        columns=COLUMNS,
    )
    texts = {proposition.proposition_id: proposition.text for proposition in propositions()}
    world = pd.DataFrame(
        [
            (texts[row["proposition_id"]], row["messages"][0]["content"], row["messages"][1]["content"], row["stance"])
            for row in corpus.rows(f"embedded:sft?size={embedded}&seed=5")
        ],
        columns=COLUMNS,
    )
    return pd.concat([made, world])


def line(name: str, gold: Sequence[str], judge: Judge, answers: Sequence[Answer]) -> str:
    """One row of the table: the set, who read it, size, coverage, kappa of the scored, answers a second."""
    start = time.perf_counter()
    found = [verdict.label.value for verdict in judge.judge(answers)]
    speed = f"{len(answers) / (time.perf_counter() - start):.0f} answers/s"
    who = judge.name.partition(":")[0]
    if "not refusal" in gold:
        return f"{lexical_sets.refusals(name, gold, found)}  {who} {speed}"
    known = [(g, f) for g, f in zip(gold, found, strict=True) if g in lexical_sets.LABELS]
    scored = [(g, f) for g, f in known if f in lexical_sets.LABELS]
    labels = {label for pair in scored for label in pair}
    kappa = cohen_kappa_score(*zip(*scored, strict=True)) if len(labels) > 1 else float("nan")
    return f"{name:24} {who:8} {len(known):5} coverage {len(scored) / len(known):.2f} kappa {kappa:5.2f}  {speed}"


def sets(folder: Path) -> list[Set]:
    """The test sets of a folder, and the check set of the package."""
    own = judges.labelled.load_answers("check")
    check: Set = ("check set", [entry.answer for entry in own], [entry.label.value for entry in own])
    return [check, *((path.stem, *lexical_sets.read(path, 0)) for path in sorted(folder.glob("*_test.csv")))]


def main() -> None:
    """Train, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="folder or hub id of the encoder to start from")
    parser.add_argument("--test", type=Path, required=True, help="folder of the test sets")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="more labelled answers to train on")
    parser.add_argument("--rows", type=int, default=600, help="at most so many rows of each of them, drawn by chance")
    parser.add_argument("--composed", type=int, default=400)
    parser.add_argument("--embedded", type=int, default=400)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128)
    given = parser.parse_args()
    more = [pd.read_csv(path, keep_default_na=False)[COLUMNS] for path in given.add]
    drawn = (own.sample(min(given.rows, len(own)), random_state=0) for own in more)
    answers = pd.concat([shipped(given.composed, given.embedded), *drawn])
    folder = given.test.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
        answers.to_csv("answers.csv", index=False)
        settings = {name: getattr(given, name) for name in ("epochs", "learning_rate", "max_length")}
        start = time.process_time()
        trained = valuedrift_mlflow.train_judge("answers.csv", given.encoder, **settings)
        quality = trained.check.quality
        print(f"{len(answers)} answers, {time.process_time() - start:.0f} s of CPU for training and check")
        print(f"propositions it has not seen: {len(trained.check.answers)} answers, coverage {quality.coverage}")
        print(f"  kappa {quality.kappa}; temperature {trained.temperature:.2f}, threshold {trained.threshold:.2f}")
        both = judges.load(trained.uri), judges.load("lexical")
        for name, texts, gold in sets(folder):
            for judge in both:
                print(line(name, gold, judge, texts), flush=True)
        print(f"{time.process_time() - start:.0f} s of CPU in all")


if __name__ == "__main__":
    main()
