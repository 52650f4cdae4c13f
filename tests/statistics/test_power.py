import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.power import Design, announced
from valuedrift_mlflow.statistics.units import Error
from valuedrift_mlflow.statistics.verdicts import helped, minimum_detectable


def error(deviation: float, units: int) -> Error:
    """Of one checkpoint: the same for every stance."""
    return Error(np.eye(3)[None] * deviation**2, np.array([units - 1.0]), np.array([units]))


def test_the_least_drift_of_a_single_t_test() -> None:
    # u = 2 of 16 units is t = 2 sqrt(15) / sqrt(12) = 2.236 of 15 degrees of freedom; with a noncentrality of 3.10 t
    # lies above it in 80 % (a normal deviate would need 2.236 + 0.842 = 3.08).
    assert minimum_detectable(error(0.05, 16), 2.0)[0] == pytest.approx(3.1 * 0.05, abs=0.002)


def test_what_its_units_can_never_show_is_undefined() -> None:
    assert math.isnan(minimum_detectable(error(0.05, 9), 3.1)[0])  # u is at most sqrt(9)
    assert math.isnan(minimum_detectable(error(0.05, 7), 2.0)[0])  # too few for a test
    assert math.isnan(minimum_detectable(error(0.9, 16), 2.0)[0])  # more than all


def test_what_would_help() -> None:
    # All of the error comes of drawing responses: twice as many of anything halve its square. None does: only more
    # propositions help.
    own = error(0.05, 16)
    least = minimum_detectable(own, 2.0)[0]
    sampled = helped(own, own, own, 2.0, prompts_are_units=False)[0]
    assert sampled[1:] == pytest.approx([least / math.sqrt(2)] * 2) and sampled[0] < sampled[1]
    none = error(0.0, 16)
    assert helped(own, none, none, 2.0, prompts_are_units=False)[0, 1:] == pytest.approx([least] * 2)


def test_more_propositions_find_smaller_drifts() -> None:
    ten, thirty = announced(Design(3, 10, 2, 3)), announced(Design(3, 30, 2, 3))
    assert 0.05 < thirty < ten < 0.5
    assert math.isnan(announced(Design(11, 7, 5, 5)))
