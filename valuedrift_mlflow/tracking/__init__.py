"""Every call of MLflow: what is written to runs, what is read of them, models and artifacts by their URIs.

It takes and gives plain values. What a suite, a measurement or a recipe is, it does not know.
"""

from typing import TYPE_CHECKING

from valuedrift_mlflow.tracking.datasets import log_dataset
from valuedrift_mlflow.tracking.earlier import (
    EarlierRun,
    audits_of,
    check_data,
    last_child,
    last_value,
    stages_of,
    stopped_run,
)
from valuedrift_mlflow.tracking.models import (
    MLFLOW_PREFIXES,
    check_model,
    checkpoint_folder,
    checkpoint_path,
    config_folder,
    downloaded,
    load_pyfunc,
    log_checkpoint,
    log_classifier,
    log_final_folder,
    log_final_model,
    logged_model,
    logged_model_id,
    model_folder,
    model_name,
)
from valuedrift_mlflow.tracking.reviews import check_run, log_review, reviewed, role_of
from valuedrift_mlflow.tracking.runs import (
    address,
    adopt,
    close,
    describe_refusal,
    how_to_open,
    is_nested,
    is_open,
    package_version,
    run,
    share,
    work_offline,
)
from valuedrift_mlflow.tracking.write import (
    LoggedDataset,
    OpenRun,
    describe,
    log_evaluation,
    log_figures,
    log_file,
    log_folder,
    log_metrics,
    log_parameters,
    log_table,
    log_tags,
    log_text,
)

if TYPE_CHECKING:
    from mlflow.models.evaluation.base import EvaluationResult

__all__ = [
    "MLFLOW_PREFIXES",
    "EarlierRun",
    "EvaluationResult",
    "LoggedDataset",
    "OpenRun",
    "address",
    "adopt",
    "audits_of",
    "check_data",
    "check_model",
    "check_run",
    "checkpoint_folder",
    "checkpoint_path",
    "close",
    "config_folder",
    "describe",
    "describe_refusal",
    "downloaded",
    "how_to_open",
    "is_nested",
    "is_open",
    "last_child",
    "last_value",
    "load_pyfunc",
    "log_checkpoint",
    "log_classifier",
    "log_dataset",
    "log_evaluation",
    "log_figures",
    "log_file",
    "log_final_folder",
    "log_final_model",
    "log_folder",
    "log_metrics",
    "log_parameters",
    "log_review",
    "log_table",
    "log_tags",
    "log_text",
    "logged_model",
    "logged_model_id",
    "model_folder",
    "model_name",
    "package_version",
    "reviewed",
    "role_of",
    "run",
    "share",
    "stages_of",
    "stopped_run",
    "work_offline",
]
