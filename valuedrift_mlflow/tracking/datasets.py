"""The data that a run is measured on, trained on or looks at, as MLflow's datasets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from mlflow.data.dataset import Dataset

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.tracking.delivery import Attempt, delivers
from valuedrift_mlflow.tracking.write import LoggedDataset, OpenRun, send

Context = Literal["evaluation", "training", "audit"]


def log_dataset(
    run: OpenRun,
    rows: pd.DataFrame | datasets.Dataset | None,
    *,
    name: str,
    source: Mapping[str, str],
    context: Context,
    digest: str | None = None,
) -> LoggedDataset:
    """Record a dataset of a run. Call it before any metric that is measured on it.

    Args:
        run: the run.
        rows: whose columns, size and profile are recorded; None for data that are read once, row by row.
        name: the name, of which 500 characters are kept.
        source: where the rows come from.
        context: what the run does with them.
        digest: their hash; MLflow makes one where it is not given.
    """
    from mlflow import entities

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*integer column")
        dataset = _dataset(rows, redacted(name)[:500], source, digest)
        entity = entities.Dataset(**dataset.to_dict())  # infers the schema that the warning is about
    send(run, "dataset", dataset=entity.to_dictionary(), context=context)
    return LoggedDataset(entity.name, entity.digest)


@delivers("dataset")
def _dataset_input(attempt: Attempt, *, run_id: str, dataset: Mapping[str, str], context: str) -> None:
    from mlflow import MlflowClient, entities

    # The same dataset a second time changes nothing: the store knows it by name and digest.
    tags = [entities.InputTag("mlflow.data.context", context)]
    MlflowClient().log_inputs(run_id, datasets=[entities.DatasetInput(entities.Dataset(**dataset), tags)])


def _dataset(
    rows: pd.DataFrame | datasets.Dataset | None, name: str, source: Mapping[str, str], digest: str | None
) -> Dataset:
    import pandas as pd
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.huggingface_dataset import from_huggingface
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.pandas_dataset import from_pandas

    # MLflow takes a source as text only where it can resolve it; ours (`embedded:...`) it cannot.
    origin = CodeDatasetSource({key: redacted(text) for key, text in source.items()})
    if rows is None:
        # Rows that are read once cannot be given away for a profile of them.
        return MetaDataset(origin, name=name, digest=digest)  # type: ignore[abstract]  # it has no profile
    if isinstance(rows, pd.DataFrame):
        return from_pandas(rows, source=origin, name=name, digest=digest)
    return from_huggingface(rows, source=origin, name=name, digest=digest)
