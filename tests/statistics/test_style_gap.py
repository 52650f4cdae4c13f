import math

import numpy as np
import pytest

from valuedrift_mlflow.statistics.style_gap import FIGURES, style, style_gap


def gap(chosen: list[str], rejected: list[str]) -> dict[str, float]:
    found = style_gap(np.array([style(t) for t in chosen]), np.array([style(t) for t in rejected]))
    return {name: getattr(found, name).value for name in FIGURES}


def test_length_is_a_ratio_of_words() -> None:
    # One pair of 4 words to 2, one of 2 to 4, one of 8 to 1: the cube root of 2 * 0.5 * 8 = 2.
    found = gap(["a b c d", "a b", "a b c d e f g h"], ["a b", "a b c d", "a"])
    assert found["length_ratio"] == pytest.approx(2.0)


def test_variety_is_read_in_the_first_hundred_words() -> None:
    assert gap(["one two three four"], ["one one one one"])["type_token_ratio"] == 0.75
    long = " ".join(f"word{number}" for number in range(100))
    assert gap([f"{long} {long}"], [long])["type_token_ratio"] == 0.0


@pytest.mark.parametrize(
    "text", ["# Title\n\ntext", "- one\n- two", "1. one\n2. two", "this is **bold**", "`code`", "[a](https://b.c)"]
)
def test_markdown_is_seen(text: str) -> None:
    assert gap([text], ["Plain text, 2 * 3 * 4, snake_case and (brackets)."])["markdown"] == 1.0


def test_hedging_and_sentiment_are_shares_of_words() -> None:
    found = gap(["Perhaps it might work out", "great"], ["It does work out fine", "awful"])
    assert found["hedging"] == pytest.approx((2 / 5 + 0) / 2)
    assert found["sentiment"] == pytest.approx((0 + 2) / 2)


def test_intervals_and_no_pairs() -> None:
    none = style_gap(np.empty((0, 5)), np.empty((0, 5)))
    assert none.pairs == 0
    assert math.isnan(none.length_ratio.value)
    one = np.array([style("a b")])
    assert math.isnan(style_gap(one, one).length_ratio.low)
    rng = np.random.default_rng(0)
    longer = [" ".join(["word"] * int(n)) for n in rng.integers(20, 40, 200)]
    shorter = [" ".join(["word"] * int(n)) for n in rng.integers(10, 20, 200)]
    ratio = style_gap(np.array([style(t) for t in longer]), np.array([style(t) for t in shorter])).length_ratio
    assert 1.9 < ratio.low < ratio.value < ratio.high < 2.3


def test_a_text_without_words_is_no_error() -> None:
    assert style("") == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert style("!!! ...")[0] == 0.0
