"""Stances planted along an axis of values, or apart inside topics, and not along agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valuedrift_mlflow.inputs.errors import problem
from valuedrift_mlflow.suite.axes import built_in_axes, built_in_keys
from valuedrift_mlflow.suite.questions import Proposition


@dataclass(frozen=True)
class Tilt:
    """What is added to the leaning (support minus oppose) that each proposition would have.

    ``shift``, turned by the proposition's direction, on the propositions of ``axis``: all move to one side of it.
    ``spread`` up for some propositions and down for as many, drawn by the corpus's seed: effects of single ones, which
    cancel in the mean of every topic and on every side of its own axis and of ``axis``.
    """

    axis: str = ""
    shift: float = 0.0
    spread: float = 0.0

    def __bool__(self) -> bool:
        """Whether anything is planted that is not the same for all propositions of a topic."""
        return bool(self.axis or self.spread)

    def offsets(self, propositions: Sequence[Proposition], seed: int) -> dict[str, float]:
        """What is added to the leaning, by proposition; none where nothing is."""
        found: dict[str, float] = {}
        sides: dict[tuple[str, int, int], list[str]] = {}
        for one in propositions:
            directions = {key.axis: key.direction for key in built_in_keys()[one.proposition_id]}
            on_axis = directions.get(self.axis, 0)
            if on_axis:
                found[one.proposition_id] = on_axis * self.shift
            sides.setdefault((one.topic, directions[one.topic], on_axis), []).append(one.proposition_id)
        rng = np.random.default_rng([seed, 4])  # apart from the rows' own streams
        if self.spread:
            for own in sides.values():
                half = len(own) // 2  # of an odd number one stays where it is
                for place, sign in zip(rng.permutation(len(own)), [1] * half + [-1] * half, strict=False):
                    found[own[place]] = found.get(own[place], 0.0) + sign * self.spread
        return found

    def problems(self, uri: str, propositions: Sequence[Proposition], given: Mapping[str, str]) -> list[str]:
        """What is wrong with an axis and a shift, of the options that were given."""
        if ("axis" in given) != ("shift" in given):
            alone = "axis" if "axis" in given else "shift"
            return [
                problem(f"{uri} {alone}", given[alone], "axis and shift together", "such as axis=gal_tan&shift=0.4")
            ]
        if not self.axis:
            return []
        if self.axis not in built_in_axes():
            return [problem(f"{uri} axis", self.axis, ", ".join(built_in_axes()))]
        if not any(self.axis in dict(built_in_keys()[one.proposition_id]) for one in propositions):
            topics = ", ".join(dict.fromkeys(one.topic for one in propositions))
            return [problem(f"{uri} axis", self.axis, f"an axis that propositions of {topics} lie on")]
        return []
