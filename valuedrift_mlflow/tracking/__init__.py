"""Every call of MLflow: what is written to runs, what is read of them, models and artifacts by their URIs.

It takes and gives plain values. What a suite, a measurement or a recipe is, it does not know.
"""

from typing import TYPE_CHECKING

from valuedrift_mlflow.tracking.checkpoints import log_checkpoint, log_checkpoint_files, log_course
from valuedrift_mlflow.tracking.datasets import log_dataset
from valuedrift_mlflow.tracking.earlier import (
    EarlierRun,
    audits_of,
    begun_audits,
    check_data,
    last_child,
    last_value,
    stages_of,
    stopped_run,
)
from valuedrift_mlflow.tracking.ending import describe_refusal
from valuedrift_mlflow.tracking.judge_models import log_judge_model
from valuedrift_mlflow.tracking.lease import check_owner, stale_after
from valuedrift_mlflow.tracking.links import commit_of, page_of, parent_of, show_model, used_model
from valuedrift_mlflow.tracking.logged import (
    checkpoint_path,
    log_classifier,
    log_final_folder,
    log_final_model,
    logged_model,
    model_name,
    scratch_of,
    uri_of,
)
from valuedrift_mlflow.tracking.measured import MeasuredRun, measured_runs, measurements_of_model
from valuedrift_mlflow.tracking.models import (
    MLFLOW_PREFIXES,
    check_model,
    checkpoint_files,
    checkpoint_folder,
    downloaded,
    files_folder,
    logged_model_id,
    logged_name,
    model_folder,
    pinned,
)
from valuedrift_mlflow.tracking.opening import is_nested
from valuedrift_mlflow.tracking.packaged import Weights, check_packaged, load_pyfunc, packaged_weights
from valuedrift_mlflow.tracking.packaging import Answering
from valuedrift_mlflow.tracking.registry import (
    check_alias,
    check_model_name,
    is_model_name,
    register,
    registered_version,
    set_alias,
)
from valuedrift_mlflow.tracking.replay import Replayed, drop_shared, replay, states, waiting
from valuedrift_mlflow.tracking.reviews import check_run, log_review, reviewed, role_of
from valuedrift_mlflow.tracking.runs import (
    adopt,
    adopt_evaluation,
    close,
    is_open,
    package_version,
    run,
    share,
    taken_up,
    work_offline,
)
from valuedrift_mlflow.tracking.store import address, check_store, command, how_to_open
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
    metric_name,
    settle,
)

if TYPE_CHECKING:
    from mlflow.models.evaluation.base import EvaluationResult

__all__ = [
    "MLFLOW_PREFIXES",
    "Answering",
    "EarlierRun",
    "EvaluationResult",
    "LoggedDataset",
    "MeasuredRun",
    "OpenRun",
    "Replayed",
    "TrainedRun",
    "Weights",
    "address",
    "adopt",
    "adopt_evaluation",
    "audits_of",
    "begun_audits",
    "check_alias",
    "check_data",
    "check_model",
    "check_model_name",
    "check_owner",
    "check_packaged",
    "check_run",
    "check_store",
    "checkpoint_files",
    "checkpoint_folder",
    "checkpoint_path",
    "close",
    "command",
    "commit_of",
    "describe",
    "describe_refusal",
    "downloaded",
    "drop_shared",
    "files_folder",
    "how_to_open",
    "is_model_name",
    "is_nested",
    "is_open",
    "last_child",
    "last_value",
    "load_pyfunc",
    "log_checkpoint",
    "log_checkpoint_files",
    "log_classifier",
    "log_course",
    "log_dataset",
    "log_evaluation",
    "log_figures",
    "log_file",
    "log_final_folder",
    "log_final_model",
    "log_folder",
    "log_judge_model",
    "log_metrics",
    "log_parameters",
    "log_review",
    "log_table",
    "log_tags",
    "log_text",
    "logged_model",
    "logged_model_id",
    "logged_name",
    "measured_runs",
    "measurements_of_model",
    "metric_name",
    "model_folder",
    "model_name",
    "model_of",
    "package_version",
    "packaged_weights",
    "page_of",
    "parent_of",
    "pinned",
    "register",
    "registered_version",
    "replay",
    "reviewed",
    "role_of",
    "run",
    "scratch_of",
    "set_alias",
    "settle",
    "share",
    "show_model",
    "stages_of",
    "stale_after",
    "states",
    "step_values",
    "stopped_run",
    "table_of",
    "taken_up",
    "text_of",
    "trained_runs",
    "uri_of",
    "used_model",
    "waiting",
    "work_offline",
]
