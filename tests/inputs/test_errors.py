import subprocess
import sys

import pytest

from valuedrift_mlflow.inputs.errors import InputError, collecting, limited, one_line, problem


def at_least_one(key: str, number: int) -> int:
    if number < 1:
        raise InputError([problem(key, number, "at least 1"), problem(key, "anything", "something else")])
    return number


def test_all_problems_are_raised_together_in_their_order() -> None:
    with pytest.raises(InputError) as caught, collecting() as problems:
        assert problems.attempt(at_least_one, "size", 0) is None
        problems.add("a problem of the block itself")
        assert problems.attempt(at_least_one, key="seed", number=3) == 3
        problems.attempt(at_least_one, "steps", -1)
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "size",
        "size",
        "a problem of the block itself",
        "steps",
        "steps",
    ]


def test_without_problems_nothing_is_raised() -> None:
    with collecting() as problems:
        found = problems.attempt(at_least_one, "size", 2)
    assert found == 2


def test_an_error_that_ends_the_block_comes_after_what_was_found_before() -> None:
    with pytest.raises(InputError, match=r"(?s)^size.*seed") as caught, collecting() as problems:
        problems.attempt(at_least_one, "size", 0)
        at_least_one("seed", 0)
        problems.add("never reached")
    assert len(caught.value.problems) == 4


def test_the_same_problem_is_shown_once() -> None:
    with pytest.raises(InputError) as caught, collecting() as problems:
        for _ in range(2):
            problems.attempt(at_least_one, "size", 0)
    assert len(caught.value.problems) == 2


def test_other_errors_are_not_collected() -> None:
    with pytest.raises(ZeroDivisionError), collecting() as problems:
        problems.add("size: found 0")
        problems.attempt(lambda: 1 // 0)


def test_of_many_problems_twenty_are_shown() -> None:
    lines = [f"row {number}" for number in range(1, 24)]
    assert limited(lines, "suite cats") == [*lines[:20], "suite cats: 3 more problems"]
    assert limited(lines[:20], "suite cats") == lines[:20]


def test_one_line_has_no_more_than_so_many_characters() -> None:
    assert one_line("a\n  b\tc ") == "a b c"
    assert one_line("long " * 100) == ("long " * 60)
    assert one_line("long " * 100, most=None) == "long " * 99 + "long"


@pytest.mark.parametrize(("debug", "shown"), [("", "valuedrift: size: found 0\n"), ("1", "Traceback")])
def test_a_user_sees_the_lines_and_exit_code_2(debug: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUEDRIFT_DEBUG", debug)
    code = (
        "from valuedrift_mlflow.inputs.errors import InputError, exit_on_bad_input\n"
        "with exit_on_bad_input():\n"
        "    raise InputError('size:\\n found 0')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (1 if debug else 2)
    assert done.stderr.startswith(shown)
