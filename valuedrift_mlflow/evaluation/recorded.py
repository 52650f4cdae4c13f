"""What a run records of its inputs: the suite or the labelled answers it is measured on, the data it reads."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from valuedrift_mlflow import tracking
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.models.files import commit_of
from valuedrift_mlflow.models.fingerprint import fingerprint
from valuedrift_mlflow.report.surroundings import hardware, software
from valuedrift_mlflow.suite import Suite
from valuedrift_mlflow.tracking import LoggedDataset, OpenRun


def log_suite(run: OpenRun, suite: Suite) -> LoggedDataset:
    """Record the suite as an evaluation dataset with its own hash. Call it before any metric that is measured on it.

    What else measurements may depend on is recorded with it: libraries and the machine.
    """
    source = {"uri": suite.source, "version": suite.version}
    logged = tracking.log_dataset(
        run, suite.frame(), name=suite.name, source=source, context="evaluation", digest=suite.hash
    )
    tracking.log_tags(run, suite.describe() | _machine())
    return logged


def _machine() -> dict[str, str]:
    """What results may depend on beside settings and seed: libraries, device, threads."""
    told = {"software": software()}
    # Asked of torch, which a measurement without weights has no other use for.
    if "torch" in sys.modules:
        import torch

        told |= {"hardware": hardware(), "threads": str(torch.get_num_threads())}
    return told


def log_commit(run: OpenRun, name: str, uri: str) -> None:
    """Record as the tag ``valuedrift.NAME.commit`` which commit of a hub's model was loaded; nothing of any other."""
    commit = commit_of(uri)
    if commit:
        tracking.log_tags(run, {f"{name}.commit": commit})


def log_start(run: OpenRun, part: str, field: str, uri: str) -> None:
    """Record which model a training starts from, with its commit; ``part`` is what the run calls it.

    Raises:
        InputError: a run that goes on began with another one; ``field`` is what asked for it.
    """
    found = check_start(run.run_id, part, field, uri)
    log_commit(run, part, uri)
    if found:
        tracking.log_tags(run, {f"{part}.{tracking.FINGERPRINT}": found})


def check_start(run_id: str, part: str, field: str, uri: str) -> str:
    """The fingerprint of a model that a training starts from.

    Raises:
        InputError: the run has recorded another one.
    """
    found = fingerprint(uri)
    tracking.check_fingerprint(run_id, part, field, uri, found)
    return found


def log_labelled(run: OpenRun, answers: Sequence[Labelled], uri: str) -> None:
    """Record labelled answers as an evaluation dataset."""
    import pandas as pd

    rows = [
        {
            "proposition": a.answer.proposition,
            "prompt": a.answer.prompt,
            "response": a.answer.response,
            "label": a.label,
        }
        for a in answers
    ]
    frame = pd.DataFrame(rows, dtype=object).astype(str)
    # Cut: MLflow takes 36 characters of a digest, and makes one of the first 10,000 rows alone where it is given none.
    digest = hashlib.sha256(frame.to_json().encode()).hexdigest()[:16]
    tracking.log_dataset(run, frame, name=Path(uri).stem, source={"uri": uri}, context="evaluation", digest=digest)


def log_training_data(run: OpenRun, data: TrainingData, lines: Sequence[str] = ()) -> None:
    """Record training data as a training dataset: its source, format, size and hash.

    The metric ``data/rows`` (step 0) says how many rows are trained on; ``data/bad_rows`` and ``data/dropped_rows``,
    where there are any, how many could not be read and were left out, and how many teach nothing. ``lines`` that people
    are told of the data are kept in ``data.txt``.
    """
    _log_rows(run, data, "training")
    lost = {"data/bad_rows": data.bad, "data/dropped_rows": data.dropped}
    counts = {"data/rows": len(data.rows)} | {key: count for key, count in lost.items() if count}
    tracking.log_metrics(run, counts, 0)
    if lines:
        tracking.log_text(run, "\n".join(lines), "data.txt")


def log_held_out(run: OpenRun, data: TrainingData) -> None:
    """Record the rows that a training is evaluated on (``eval_data``) as an evaluation dataset, with their hash."""
    _log_rows(run, data, "evaluation")


def _log_rows(run: OpenRun, data: TrainingData, context: Literal["training", "evaluation"]) -> None:
    source = {"uri": data.uri, "format": data.format}
    tracking.log_dataset(
        run, data.dataset(), name=_name(data.uri), source=source, context=context, digest=data.digest()
    )


def log_audited_data(run: OpenRun, uri: str, format: str, digest: str) -> None:
    """Record data that are read once, row by row: their source, format and hash, that of a training on them."""
    source = {"uri": uri, "format": format}
    tracking.log_dataset(run, None, name=_name(uri), source=source, context="audit", digest=digest)


def _name(uri: str) -> str:
    return redacted(uri).rsplit("/", 1)[-1].partition("?")[0]  # of a URI: its end alone shows no login for what it is
