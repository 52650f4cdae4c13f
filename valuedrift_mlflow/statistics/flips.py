"""Sign flips of whole units: tests of change that are exact where few units allow it, and one family for a stage.

Had nothing changed, a proposition's change of stances was as likely to be its opposite. So the changes of all
propositions are turned round at random, each with all its prompts, checkpoints and stances together, and the figure
of every topic, checkpoint and stance is recomputed. Propositions that move at random about zero are noise to this test.

Figures are made comparable by their own size: ``u = |sum d| / sqrt(sum d^2)`` over the units' changes d. That is a
monotone function of t, ``t = u sqrt(G - 1) / sqrt(G - u^2)``, but its denominator is the same under every flip. All
figures of a stage are one family: `family`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.units import FEW_UNITS

Floats = NDArray[np.float64]

ENUMERATED = 12  # units up to which every sign pattern is looked at: 2 ** 11 of them
ROUNDING = 1e-9  # differences smaller than this are floating-point noise, not stance


@dataclass(frozen=True, slots=True, eq=False)
class Flipped:
    """One topic under the sign flips of its units.

    Attributes:
        figure: (C, 3) u as observed; NaN where fewer than `FEW_UNITS` units were scored, 0 where nothing changed.
        units: (C,) how many units were scored at both checkpoints.
        table: (R, C * 3) u under R flips: all there are, each once, where ``exact``.
        exact: whether the table has every flip.
        p_value: (C, 3) of each stance alone; NaN where no unit was scored.
        topic_p_value: (C,) of the total variation.
    """

    figure: Floats
    units: NDArray[np.int64]
    table: Floats
    exact: bool
    p_value: Floats
    topic_p_value: Floats


def flipped(changes: Floats, member: Floats, flips: int, rng: np.random.Generator) -> Flipped:
    """Turn the units of a topic round.

    Args:
        changes: (C, n, 3) each prompt's change from the first checkpoint, NaN where it was not scored at both.
        member: (n, G) which prompt is in which unit.
        flips: how many flips to draw, where there are too many units to look at all.
        rng: draws them.
    """
    scored = ~np.isnan(changes[..., 0])
    sums = np.einsum("cns,ng->gcs", np.where(scored[..., None], changes, 0.0), member)
    units = ((scored.astype(np.float64) @ member) > 0).sum(axis=1)
    size = np.sqrt((sums**2).sum(axis=0))
    parts = np.divide(sums, size, out=np.zeros_like(sums), where=size > ROUNDING)
    exact = len(sums) <= ENUMERATED
    signs = all_signs(len(sums)) if exact else rng.choice([-1.0, 1.0], (flips, len(sums)))
    table = np.abs(signs @ parts.reshape(len(sums), -1))
    observed = np.abs(parts.sum(axis=0))
    turned = table.reshape(len(signs), *observed.shape)
    p_value = _share(turned, observed, exact)
    # Total variation of the mean: half the sum of the absolute changes, in any unit of size.
    distances = 0.5 * (turned * size).sum(axis=-1)
    topic_p = _share(distances, 0.5 * (observed * size).sum(axis=-1), exact)
    p_value[units == 0], topic_p[units == 0] = np.nan, np.nan
    figure = np.where((units >= FEW_UNITS)[:, None], observed, np.nan)
    return Flipped(figure, units, table, exact, p_value, topic_p)


def all_signs(units: int) -> Floats:
    """(2 ** (G - 1), G): every sign pattern of G units once, the last unit's sign held (both tails are alike)."""
    patterns = np.arange(2 ** (units - 1))
    bits = (patterns[:, None] >> np.arange(units)) & 1
    return np.where(bits == 1, -1.0, 1.0)


def _share(table: Floats, observed: Floats, exact: bool) -> Floats:
    """(R, ...), (...) -> (...): the share of flips at least as extreme; where they were drawn, observed is one more."""
    extreme = (table >= observed - ROUNDING).sum(axis=0)
    share: Floats = extreme / len(table) if exact else (1 + extreme) / (1 + len(table))
    return share
