"""Audits on questions that the data themselves raise: found, written as a suite, and audited on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.models.how import STORED, How
from valuedrift_mlflow.value_gap import discovery
from valuedrift_mlflow.value_gap.audit import Prepared, run
from valuedrift_mlflow.value_gap.exchanges import batches, rows_of
from valuedrift_mlflow.value_gap.findings import Discovery
from valuedrift_mlflow.value_gap.matching import Matcher


def discover(
    prepared: Prepared,
    output: Path,
    *,
    model: str = "",
    how: How = STORED,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> Discovery:
    """Find contested questions that a prepared audit's suite does not have, write them as a suite, audit on it.

    The suite file goes to ``output`` and to the run of the audit on it; ``suite=FILE`` measures these topics. The data
    are read once more. With ``model`` that one writes propositions that rules cannot find.

    Raises:
        InputError: an output that is no csv file, a model that cannot be loaded, rows that cannot be read.
    """
    discovery.check_output(output)
    data = prepared.data
    questions = discovery.Questions(prepared.matcher)
    # A stream can be read again: every pass opens its source anew.
    rows = data.rows if isinstance(data, TrainingData) else data
    for batch in batches(rows):
        questions.take(batch)
        progress(rows_of(batch))
    found = questions.found(embedder=prepared.matcher.embedder, model=model, how=how)
    if found.suite is None:
        return Discovery(None, found, None)
    # Written and loaded again: what is audited is what a later command will load from the file.
    found.suite.frame().to_csv(output, index=False)
    written = suites.load(str(output))
    matcher = Matcher(written, prepared.matcher.embedder)
    audited = run(replace(prepared, suite=written, matcher=matcher), seed=seed)
    return Discovery(output, found, audited)
