from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from valuedrift_mlflow.value_gap.drawn import Drawn


def drawn(size: int, things: list[int], cuts: list[int], *, seed: int = 0, late: int = 0) -> list[int]:
    """A sample by parts, of which each was begun when ``late`` parts before it had not been added."""
    whole, waiting = Drawn[int](size, (seed, 1)), list[Drawn[int]]()
    for number, some in enumerate(np.split(np.array(things), cuts)):
        part = whole.part(number)
        part.take(some.tolist(), lambda thing: thing)
        waiting.append(part)
        if len(waiting) > late:
            whole.add(waiting.pop(0))
    for part in waiting:
        whole.add(part)
    assert whole.passed == len(things)
    return whole.kept()


def test_few_things_are_all_kept_in_their_order() -> None:
    assert drawn(7, [5, 3, 9, 1, 4], [2, 3]) == [5, 3, 9, 1, 4]


@pytest.mark.parametrize("late", [1, 4, 100])
def test_a_sample_does_not_depend_on_when_its_parts_are_added(late: int) -> None:
    things, cuts = list(range(1_000)), [10, 300, 301, 301, 600, 950]
    kept = drawn(50, things, cuts)
    assert len(set(kept)) == 50 and kept == sorted(kept)
    assert drawn(50, things, cuts, late=late) == kept != drawn(50, things, cuts, seed=1)


def test_what_is_given_up_is_not_made() -> None:
    """Of 100 blocks of 1,000 things 20 are kept: by hand 20 (1 + 1/2 + ... + 1/100) = 104 at most, on average."""
    made, whole = 0, Drawn[int](20, (0, 1))

    def counted(thing: int) -> int:
        nonlocal made
        made += 1
        return thing

    for number in range(100):
        part = whole.part(number)
        part.take(range(1_000), counted)
        whole.add(part)
    assert len(whole.kept()) == 20 and made < 250


def test_every_thing_is_equally_likely_to_be_kept() -> None:
    """400 samples of 30 from 120 things in parts of unequal size: each thing in a quarter of them."""
    counts = np.zeros(120)
    for seed in range(400):
        counts[drawn(30, list(range(120)), [5, 20, 90], seed=seed, late=1)] += 1
    assert counts.sum() == 400 * 30
    # Drawn without replacement, so the counts vary less than those of chi-square: by (1 - 30 / 120).
    assert chisquare(counts).statistic / 0.75 < 119 + 5 * np.sqrt(2 * 119)
