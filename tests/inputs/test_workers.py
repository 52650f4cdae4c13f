"""Processes for other cores: the same ones for all that ask, and none where none may be."""

import multiprocessing
import os
import time

import joblib
import pytest

from valuedrift_mlflow.inputs.workers import workers

_KEPT: list[bytearray] = []


def _grown(size: int) -> int:
    """Keep so many bytes of memory, for longer than the second between two looks of loky's at it."""
    _KEPT.append(bytearray(b"x") * size)
    time.sleep(1.2)
    return os.getpid()


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


def test_a_forked_process_has_none_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer their parent: who waited for them here waited for ever."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    others, _ = workers()
    assert others is not None and others.submit(abs, -1).result() == 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(workers()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() == "(None, 0)"


def test_what_a_user_does_with_joblib_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes loky's reusable processes for its own, whoever has begun them."""
    for _ in range(2):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-number) for number in range(3)) == [0, 1, 2]
        monkeypatch.setattr("joblib.cpu_count", lambda: 2)
        others, count = workers()
        assert others is not None and count == 1 and others.submit(abs, -1).result() == 1


def test_where_none_can_be_started_there_are_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "two")
    assert workers() == (None, 0)
    assert "'two'" in caplog.text


def test_a_process_that_loads_much_is_the_same_one_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """320 MB more than after its first work, which loky would start another process for."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    others, _ = workers()
    assert others is not None
    first, grown = others.submit(os.getpid).result(), others.submit(_grown, 320_000_000).result()
    assert first == grown == others.submit(os.getpid).result()
