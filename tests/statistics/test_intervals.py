import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from valuedrift_mlflow.statistics.intervals import Estimate, share, with_interval


def test_shares() -> None:
    assert math.isnan(share(0, 0).value)
    assert share(0, 100).high == pytest.approx(0.037, abs=5e-4)  # Wilson: 1.96^2 / (100 + 1.96^2)


def test_an_interval_comes_from_the_defined_draws_and_holds_its_estimate() -> None:
    # Of 0, 1, ..., 40 the 2.5 % point is 1 and the 97.5 % point 39.
    draws = np.append(np.arange(41.0), math.nan)
    assert Estimate.of(20.0, draws) == Estimate(20.0, 1.0, 39.0)
    assert Estimate.of(40.0, draws) == Estimate(40.0, 1.0, 40.0)
    assert math.isnan(Estimate.of(20.0, np.full(3, math.nan)).low)


def test_an_undefined_interval_is_not_shown() -> None:
    assert with_interval(0.1234, np.array([0.1, 0.15])) == "0.123 [0.100, 0.150]"
    assert with_interval(0.1234, np.array([math.nan, 0.15])) == "0.123"


@given(st.integers(0, 400), st.integers(1, 400))
def test_the_interval_of_a_share_is_that_of_scipy(count: int, total: int) -> None:
    count = min(count, total)
    found, peer = share(count, total), binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
