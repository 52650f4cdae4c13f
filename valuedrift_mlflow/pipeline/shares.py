"""The share of every stage in what a chain of stages comes to: exact Shapley values, where all parts were trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.pipeline.ablation_summary import ALPHA
from valuedrift_mlflow.pipeline.outcomes import OPPOSE, SUPPORT, Choice, worths
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.shapley import shapley

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"
DRIFT = "drift"
QUANTITIES = (DRIFT, "leaning", *(stance.value for stance in STANCES))


@dataclass(frozen=True)
class Shares:
    """What each stage of one chain contributes, with its spread over seeds.

    Attributes:
        chain: the stages in their order.
        doses: the doses of this chain in words.
        topics: T topics, then ``overall``: the mean over topics.
        value: by stage (Q, T + 1): ``drift`` from the base (never negative, so that noise makes a part of it),
            ``leaning`` (support minus oppose, signed) and the signed change of each stance.
        interval: by stage (Q, T + 1, 2) t intervals at 95 % over the seeds; NaN with one seed.
        total: (Q, T + 1) what the whole chain comes to: the values of the stages add up to it.
        seeds: how many.
    """

    chain: tuple[str, ...]
    doses: str
    topics: tuple[str, ...]
    value: Mapping[str, NDArray[np.float64]]
    interval: Mapping[str, NDArray[np.float64]]
    total: NDArray[np.float64]
    seeds: int


def shares(found: Sequence[Choice]) -> list[Shares]:
    """The shares in every chain of at least two stages of which each part was trained, the longest chains alone."""
    made = []
    for doses, by_stages in worths(found).items():
        known = {stages for stages in by_stages if all(part in by_stages for part in _parts(stages))}
        longest = [s for s in known if len(s) > 1 and not any(set(s) < set(other) for other in known)]
        made += [_of_chain(stages, ", ".join(doses), by_stages) for stages in by_stages if stages in longest]
    return made


def _parts(stages: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All sets of these stages, in the chain's order."""
    for size in range(1, len(stages) + 1):
        yield from combinations(stages, size)


def _of_chain(stages: tuple[str, ...], doses: str, by_stages: Mapping[tuple[str, ...], Choice]) -> Shares:
    parts = {part: by_stages[part].per_seed() for part in _parts(stages)}
    # Seeds whose cells all came through: a share needs every part.
    seeds = sorted(set.intersection(*(set(own) for own in parts.values())))
    worth = {part: np.stack([_quantities(own[seed]) for seed in seeds]) for part, own in parts.items()}
    per_seed = shapley(stages, worth)  # (seeds, Q, T + 1) for each stage
    value = {stage: own.mean(axis=0) for stage, own in per_seed.items()}
    interval = {stage: _interval(own) for stage, own in per_seed.items()}
    topics = (*by_stages[stages].drift.topics, OVERALL)
    return Shares(stages, doses, topics, value, interval, worth[stages].mean(axis=0), len(seeds))


def _quantities(changes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, T + 1) of the (T, 3) signed changes of stances."""
    drift = np.abs(changes).sum(axis=1) / 2
    lean = changes[:, SUPPORT] - changes[:, OPPOSE]
    by_topic = np.vstack([drift, lean, changes.T])
    return np.hstack([by_topic, np.nanmean(by_topic, axis=1, keepdims=True)])


def _interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """T intervals of the means over the first dimension."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return np.full((*values.shape[1:], 2), math.nan)
    half = t.ppf(1 - ALPHA / 2, count - 1) * values.std(axis=0, ddof=1) / math.sqrt(count)
    middle = values.mean(axis=0)
    return np.stack([middle - half, middle + half], axis=-1)


def shares_table(made: Sequence[Shares]) -> pd.DataFrame:
    """One row for each chain, topic, quantity and stage: the table ``ablation_shares.json``."""
    import pandas as pd

    rows = [
        {
            "chain": " → ".join(own.chain),
            "doses": own.doses,
            "topic": topic,
            "quantity": quantity,
            "stage": stage,
            "value": own.value[stage][q, t],
            "ci_low": own.interval[stage][q, t, 0],
            "ci_high": own.interval[stage][q, t, 1],
            "total": own.total[q, t],
            "seeds": own.seeds,
        }
        for own in made
        for t, topic in enumerate(own.topics)
        for q, quantity in enumerate(QUANTITIES)
        for stage in own.chain
    ]
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


SHARE_COLUMNS = ("chain", "stage", "of the drift", "of the leaning", "total drift", "seeds")


def share_rows(made: Sequence[Shares]) -> list[list[str]]:
    """The shares over all topics as text, a row for each stage of a chain."""
    rows = []
    for own in made:
        for stage in own.chain:
            cells = [_shown(own, stage, QUANTITIES.index(name)) for name in (DRIFT, "leaning")]
            chain = " → ".join(own.chain) + (f", {own.doses}" if own.doses else "")
            rows.append([chain, stage, *cells, f"{own.total[0, -1]:.3f}", str(own.seeds)])
    return rows


def _shown(own: Shares, stage: str, quantity: int) -> str:
    value, (low, high) = own.value[stage][quantity, -1], own.interval[stage][quantity, -1]
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else "")
