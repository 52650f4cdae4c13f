"""What each part of the offline judge is good for: python benchmarks/lexical_ablation.py [FOLDER].

A row leaves one part out, or takes one alone. Columns: the share read right of the embedded corpora's held-out forms;
coverage and kappa of the package's check set (written answers) and real set (answers and essays of real models); with
a FOLDER of labelled csv files (proposition, prompt, response, label) the same of up to 300 rows of each, all together.
The first row is the judge as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from valuedrift_mlflow.embedded.corpus import held_out_answers
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.judges.lexical import declared, features, judge, reach
from valuedrift_mlflow.judges.lexical.fitting.answers import fitting_answers, written_answers
from valuedrift_mlflow.judges.lexical.fitting.fit import fit
from valuedrift_mlflow.judges.lexical.frame import Reading
from valuedrift_mlflow.judges.lexical.reader import LexicalReader
from valuedrift_mlflow.stances import Answer

Set = tuple[list[Answer], list[str]]
ROWS = 300


def no_side(*_texts: str) -> int:
    """Reads nothing."""
    return 0


def never(_response: str) -> bool:
    """Finds no refusal."""
    return False


def no_limit(answer: Answer) -> tuple[str, float]:
    """Weighs every text."""
    return "" if answer.response.strip() else reach.EMPTY, reach.MINIMUM_PROBABILITY


def always(trust: float) -> Callable[[LexicalReader, Sequence[Reading]], NDArray[np.float64]]:
    """The same trust in the declared reader for every text, whatever its manner."""
    return lambda _reader, readings: np.full(len(readings), trust)


def variants() -> Iterator[tuple[str, list[tuple[object, str, object]]]]:
    """Names of the variants, each with what is replaced: owner, attribute, replacement."""
    yield "the judge as it is", []
    yield "without declared sentences", [(declared, "side", no_side), (declared, "pointed", no_side)]
    yield "without the pattern of refusals", [(declared, "declines", never)]
    yield "without limits of reach", [(reach, "reach", no_limit)]
    cues = len(features.leanings(judge.read(Answer("Zoos should close.", "", "Yes."), 1)))
    yield "without cue expressions", [(features, "leanings", lambda _reading: [0.0] * cues)]
    yield "declared reader alone", [(LexicalReader, "trust", always(1.0))]
    yield "argued reader alone", [(LexicalReader, "trust", always(0.0))]
    yield "mean of both, whatever the manner", [(LexicalReader, "trust", always(0.5))]


def figures(answers: Sequence[Answer], gold: Sequence[str]) -> tuple[float, float, float]:
    """The share read right, the share scored, and the kappa of the scored."""
    found = [verdict.label.value for verdict in judge.LexicalJudge().judge(answers)]
    scored = [pair for pair in zip(gold, found, strict=True) if pair[1] != "unscored"]
    right = sum(a == b for a, b in zip(gold, found, strict=True)) / len(found)
    kappa = (
        cohen_kappa_score(*zip(*scored, strict=True)) if len({label for pair in scored for label in pair}) > 1 else 0.0
    )
    return right, len(scored) / len(found), float(kappa)


def own_set(name: str) -> Set:
    """A labelled set of the package."""
    rows = labelled.load_answers(name)
    return [row.answer for row in rows], [row.label.value for row in rows]


def folder_set(folder: Path) -> Set:
    """Up to ``ROWS`` rows of each csv file of a folder."""
    tables = [pd.read_csv(path, keep_default_na=False) for path in sorted(folder.glob("*.csv"))]
    table = pd.concat([table.sample(min(len(table), ROWS), random_state=0) for table in tables])
    table = table[table.proposition != ""]
    texts = zip(table.proposition, table.prompt, table.response, strict=True)
    return [Answer(*row) for row in texts], list(table.label)


def main() -> None:
    """Print a row for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    held_out = held_out_answers()
    sets = {name: own_set(name) for name in ("check", "real")} | ({"folder": folder_set(folder)} if folder else {})
    for name, replaced in variants():
        with ExitStack() as stack:
            for owner, attribute, replacement in replaced:
                stack.enter_context(patch.object(owner, attribute, replacement))
            if any(owner is features for owner, _, _ in replaced):  # what is left out is left out of the fit
                fitted = fit(fitting_answers(), written_answers())
                stack.enter_context(patch.object(judge, "_fitted", lambda fitted=fitted: fitted))
            right, *_ = figures([answer for answer, _ in held_out], [stance.value for _, stance in held_out])
            columns = [
                f"{key} {cover:.3f} {kappa:5.3f}" for key, rows in sets.items() for _, cover, kappa in [figures(*rows)]
            ]
        print(f"{name:34} embedded {right:.3f}  {'  '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
