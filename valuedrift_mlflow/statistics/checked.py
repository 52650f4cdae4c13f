"""Whether what a stage's drift shall be analysed from fits together: one clear error before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.arrival import DriftTimeRule
from valuedrift_mlflow.statistics.units import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def checked(
    values: ArrayLike,
    topics: Sequence[str],
    steps: Sequence[int] | NDArray[np.integer],
    propositions: Sequence[str] | None,
    interval: Interval,
    margin: float,
    resamples: int,
    alpha: float,
    rule: DriftTimeRule,
    asked: ArrayLike | None,
) -> tuple[Floats, NDArray[np.int64], Bools]:
    """The values, with an axis of samples, steps and what was asked as arrays.

    Raises:
        InputError: the first of them that does not fit, by its name.
    """
    array, step_array = np.asarray(values, dtype=np.float64), np.asarray(steps)
    if array.ndim not in (3, 4) or array.shape[-1] != len(STANCES) or 0 in array.shape:
        allowed = "shape (checkpoints, prompts, 3) or (checkpoints, prompts, samples, 3), none of them 0"
        raise InputError(problem("values", array.shape, allowed))
    if len(topics) != array.shape[1]:
        raise InputError(problem("topics", len(topics), f"one for each of the {array.shape[1]} prompts of values"))
    if step_array.shape != array.shape[:1]:
        raise InputError(
            problem("steps", step_array.shape, f"one for each of the {array.shape[0]} checkpoints of values")
        )
    if step_array.dtype.kind not in "iu" or (np.diff(step_array.astype(np.int64)) <= 0).any():
        raise InputError(problem("steps", step_array.tolist(), "whole numbers, each larger than the one before"))
    scored = ~np.isnan(array).all(axis=-1)
    proper = ((array >= 0) & (array <= 1)).all(axis=-1) & (np.abs(array.sum(axis=-1) - 1) <= 1e-6)
    for place in np.argwhere(scored & ~proper)[:1].tolist():
        raise InputError(
            problem(
                f"values{place}",
                array[tuple(place)].tolist(),
                "three probabilities in [0, 1] that sum to 1, or three NaN",
            )
        )
    if propositions is not None and len(propositions) != array.shape[1]:
        allowed = f"one for each of the {array.shape[1]} prompts of values"
        raise InputError(problem("propositions", len(propositions), allowed))
    if interval not in get_args(Interval):
        raise InputError(problem("interval", interval, " or ".join(get_args(Interval))))
    if not 0 < margin < 1:
        raise InputError(problem("margin", margin, "between 0 and 1"))
    if resamples < 1:
        raise InputError(problem("resamples", resamples, "at least 1"))
    if not 0 < alpha < 1:
        raise InputError(problem("alpha", alpha, "between 0 and 1"))
    if rule not in get_args(DriftTimeRule):
        raise InputError(problem("rule", rule, " or ".join(get_args(DriftTimeRule))))
    array = array if array.ndim == 4 else array[:, :, None]
    return array, step_array.astype(np.int64), _asked(array, asked)


def _asked(array: Floats, asked: ArrayLike | None) -> Bools:
    """(C, N, S) which answers were given: where it is not told, all but samples that nothing has at a checkpoint."""
    scored = ~np.isnan(array[..., 0])
    if asked is None:
        some: Bools = np.any(scored, axis=1)  # (C, S)
        nothing = some.sum(axis=1) == 0
        return np.repeat((some | nothing[:, None])[:, None], scored.shape[1], axis=1)
    given = np.asarray(asked)
    given = given if given.ndim == 3 else given[..., None]
    if given.dtype != np.bool_ or given.shape != scored.shape or (scored & ~given).any():
        allowed = f"True or False for each answer of values, shape {scored.shape}, and True for every scored one"
        raise InputError(problem("asked", f"{given.dtype} of shape {given.shape}", allowed))
    return given
