"""Every call of MLflow: what is written to runs, what is read of them, models and artifacts by their URIs.

It takes and gives plain values. What a suite, a measurement or a recipe is, it does not know.
"""

from typing import TYPE_CHECKING

from valuedrift_mlflow.tracking.checkpoints import log_checkpoint, log_checkpoint_files
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
    downloaded,
    files_folder,
    load_pyfunc,
    log_classifier,
    log_final_folder,
    log_final_model,
    logged_model,
    logged_model_id,
    model_folder,
    model_name,
    pinned,
)
from valuedrift_mlflow.tracking.packaging import Answering
from valuedrift_mlflow.tracking.reviews import check_run, log_review, reviewed, role_of
from valuedrift_mlflow.tracking.runs import (
    address,
    adopt,
    close,
    commit_of,
    describe_refusal,
    how_to_open,
    is_nested,
    is_open,
    package_version,
    run,
    share,
    work_offline,
)
from valuedrift_mlflow.tracking.trained import TrainedRun, model_of, step_values, table_of, text_of, trained_runs
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
    "Answering",
    "EarlierRun",
    "EvaluationResult",
    "LoggedDataset",
    "OpenRun",
    "TrainedRun",
    "address",
    "adopt",
    "audits_of",
    "check_data",
    "check_model",
    "check_run",
    "checkpoint_folder",
    "checkpoint_path",
    "close",
    "commit_of",
    "describe",
    "describe_refusal",
    "downloaded",
    "files_folder",
    "how_to_open",
    "is_nested",
    "is_open",
    "last_child",
    "last_value",
    "load_pyfunc",
    "log_checkpoint",
    "log_checkpoint_files",
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
    "model_of",
    "package_version",
    "pinned",
    "reviewed",
    "role_of",
    "run",
    "share",
    "stages_of",
    "step_values",
    "stopped_run",
    "table_of",
    "text_of",
    "trained_runs",
    "work_offline",
]
