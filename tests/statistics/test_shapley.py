import numpy as np
import pytest

from valuedrift_mlflow.statistics.shapley import shapley

# Worked out by hand over the six orders of three players. v: a 6, b 12, c 42, ab 18, ac 60, bc 66, abc 90.
# a joins first (twice) 6, after b 6, after c 18, last (twice) 24: (6 + 6 + 6 + 18 + 24 + 24) / 6 = 14;
# b: 12, 12, 12, 24, 30, 30 = 20; c: 42, 42, 54, 54, 72, 72 = 56. Together 90.
THREE = {
    ("a",): 6.0,
    ("b",): 12.0,
    ("c",): 42.0,
    ("a", "b"): 18.0,
    ("a", "c"): 60.0,
    ("b", "c"): 66.0,
    ("a", "b", "c"): 90.0,
}


def test_values_by_hand() -> None:
    values = shapley(["a", "b", "c"], THREE)
    assert {name: round(float(value), 9) for name, value in values.items()} == {"a": 14.0, "b": 20.0, "c": 56.0}


def test_the_values_add_up_and_who_adds_nothing_has_nothing() -> None:
    rng = np.random.default_rng(0)
    worth = {names: rng.normal(size=(4, 2)) for names in THREE}
    # `c` adds nothing to any set.
    worth |= {("c",): np.zeros((4, 2)), ("a", "c"): worth["a",], ("b", "c"): worth["b",]}
    worth["a", "b", "c"] = worth["a", "b"]
    values = shapley(["a", "b", "c"], worth)
    assert sum(values.values()) == pytest.approx(worth["a", "b", "c"])
    assert values["c"] == pytest.approx(0)


def test_a_set_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError):
        shapley(["a", "b"], {("a",): 1.0, ("a", "b"): 2.0})
