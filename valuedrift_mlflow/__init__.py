"""When, where and how much post-training moves the values a language model expresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.callback import ValueDriftCallback
    from valuedrift_mlflow.evaluation.compare import compare
    from valuedrift_mlflow.evaluation.each import evaluate_each
    from valuedrift_mlflow.evaluation.evaluate import evaluate
    from valuedrift_mlflow.evaluation.gate import gate_thresholds
    from valuedrift_mlflow.evaluation.judge_check import check_judge
    from valuedrift_mlflow.evaluation.judge_training import train_judge
    from valuedrift_mlflow.evaluation.review import review
    from valuedrift_mlflow.evaluation.scorer import ValueStance
    from valuedrift_mlflow.judges.packaged import log_judge
    from valuedrift_mlflow.pipeline.attribute import attribute
    from valuedrift_mlflow.pipeline.pipeline import run_pipeline
    from valuedrift_mlflow.tracking.registry import best_checkpoint
    from valuedrift_mlflow.value_gap.audit import audit
    from valuedrift_mlflow.value_gap.synthesis import synthesize

__all__ = [
    "ValueDriftCallback",
    "ValueStance",
    "attribute",
    "audit",
    "best_checkpoint",
    "check_judge",
    "compare",
    "evaluate",
    "evaluate_each",
    "gate_thresholds",
    "log_judge",
    "review",
    "run_pipeline",
    "synthesize",
    "train_judge",
]

_HOMES = {
    "ValueDriftCallback": "evaluation.callback",
    "ValueStance": "evaluation.scorer",
    "attribute": "pipeline.attribute",
    "audit": "value_gap.audit",
    "best_checkpoint": "tracking.registry",
    "check_judge": "evaluation.judge_check",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "evaluate_each": "evaluation.each",
    "gate_thresholds": "evaluation.gate",
    "log_judge": "judges.packaged",
    "review": "evaluation.review",
    "run_pipeline": "pipeline.pipeline",
    "synthesize": "value_gap.synthesis",
    "train_judge": "evaluation.judge_training",
}


def __getattr__(name: str) -> Any:
    """Import the public names where they are used: the libraries behind them take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
