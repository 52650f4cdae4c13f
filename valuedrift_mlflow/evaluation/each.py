"""Several models, such as the checkpoints of one training: each evaluated as it would be alone, in far less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.evaluation import reliability
from valuedrift_mlflow.evaluation.evaluate import Config, asked_now, memory_of, opened, run_evaluation
from valuedrift_mlflow.evaluation.measurement import no_progress
from valuedrift_mlflow.evaluation.subjects import Asked
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from valuedrift_mlflow.models.generation import Progress
    from valuedrift_mlflow.tracking import EvaluationResult


def evaluate_each(
    uris: Sequence[str],
    baseline: str | None = None,
    *,
    suite: str | Suite = "",
    progress: Progress = no_progress,
    **settings: Any,
) -> list[EvaluationResult]:
    """Evaluate several models, each in a run of its own (nested where one is active), with the same results as alone.

    The baseline is measured once. Models of one architecture are read into the same memory, and adapters are folded
    into a base that is loaded once; see `models.swapping`.

    Args:
        uris: models, as ``model`` of `evaluate`.
        baseline: the model to measure all of their drifts from, or a table of its responses.
        suite: a suite or its URI; ``vaes`` where it is not given.
        progress: called with the number of responses generated.
        settings: as those of `evaluate`.

    Returns:
        What `evaluate` returns, for each model, in order.

    Raises:
        InputError: before any computing, for all models at once.
    """
    if not uris:
        raise InputError(problem("uris", "none", "at least one model"))
    config = Config.checked({**settings, "baseline": baseline})
    memory = memory_of(config)
    with collecting() as problems:
        tried = [problems.attempt(opened, config, uri, suite=suite, memory=memory) for uri in uris]
    ready = [one for one in tried if one is not None]
    before = ready[0].baseline
    if isinstance(before, Asked):
        measured = asked_now(before.load(), ready[0], "baseline", progress)
        ready = [replace(one, measured=measured) for one in ready]
    results = []
    for one in ready:
        result, evaluation = run_evaluation(one, progress)
        reliability.warn(evaluation.trust)
        results.append(result)
    return results
