"""Processes for other cores: the same ones for all that ask, and none where none may be."""

import multiprocessing
import os

import pytest

from valuedrift_mlflow.inputs.workers import workers


def _how_many() -> int:
    os.environ["LOKY_MAX_CPU_COUNT"] = "2"
    return workers()[1]


def test_who_asks_again_is_given_the_same_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    first, count = workers()
    assert first is not None and count == 2
    assert first.submit(os.getpid).result() != os.getpid()
    assert workers(2)[0] is first and workers(1)[1] == 1


def test_one_core_has_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert workers() == (None, 0)


def test_a_process_of_a_pool_starts_none() -> None:
    """It may have no children: work is done in it, and does not end with an error of Python's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_how_many) == 0
