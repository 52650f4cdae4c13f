"""What is done beside a training is done in order, and what goes wrong there is never lost."""

import threading
from collections.abc import Callable

import pytest

from valuedrift_mlflow.evaluation.beside import Beside


def fails() -> None:
    raise OSError("no space left")


def test_work_is_done_in_order_while_its_giver_goes_on() -> None:
    done: list[int] = []
    may_go_on = threading.Event()

    def piece(number: int) -> Callable[[], None]:
        def work() -> None:
            may_go_on.wait(60)
            done.append(number)

        return work

    with Beside() as beside:
        for number in range(5):
            beside.do(piece(number))
        beside.check()
        assert done == []
        may_go_on.set()
        beside.finish()
        assert done == [0, 1, 2, 3, 4]


def test_an_error_is_raised_and_what_follows_it_is_not_done() -> None:
    done: list[str] = []
    beside = Beside()
    beside.do(lambda: done.append("before"))
    beside.do(fails)
    beside.do(lambda: done.append("after"))
    with pytest.raises(OSError, match="no space left"):
        beside.finish()
    beside.finish()
    assert done == ["before"]


def test_work_that_is_open_is_done_although_the_training_fails() -> None:
    done: list[str] = []
    with pytest.raises(ValueError, match="the training"), Beside() as beside:  # both belong to it
        beside.do(lambda: done.append("kept"))
        raise ValueError("the training")
    assert done == ["kept"]


def test_two_errors_are_both_told() -> None:
    with pytest.raises(ValueError, match="the training") as raised, Beside() as beside:
        beside.do(fails)
        raise ValueError("the training")
    assert raised.value.__notes__ == ["beside it went wrong: OSError: no space left"]


def test_an_error_at_the_very_end_is_raised() -> None:
    with pytest.raises(OSError, match="no space left"), Beside() as beside:
        beside.do(fails)
