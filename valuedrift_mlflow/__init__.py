"""When, where and how much post-training moves the values a language model expresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valuedrift_mlflow.callback import ValueDriftCallback
    from valuedrift_mlflow.evaluator import evaluate
    from valuedrift_mlflow.judge_check import check_judge
    from valuedrift_mlflow.scorer import ValueStance
    from valuedrift_mlflow.synthesis import synthesize

__all__ = ["ValueDriftCallback", "ValueStance", "check_judge", "evaluate", "synthesize"]

_HOMES = {
    "ValueDriftCallback": "callback",
    "ValueStance": "scorer",
    "check_judge": "judge_check",
    "evaluate": "evaluator",
    "synthesize": "synthesis",
}


def __getattr__(name: str) -> Any:
    """Import the public names where they are used: the libraries behind them take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
