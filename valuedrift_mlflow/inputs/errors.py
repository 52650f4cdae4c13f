"""The errors that users see on one line, without a traceback: bad input, and somebody asked who stays silent.

Bad input is raised before any computing, with all that is wrong.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import ParamSpec, TypeVar

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.shown import safe, shortened, show

# That of argparse for flags that it does not know: bad input of either kind looks alike to scripts.
EXIT_CODE = 2
_MAX_PROBLEMS = 20  # problems listed of one file
_MAX_LINES = 200  # of one error
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def problem(where: str, found: object, allowed: str, mend: str = "") -> str:
    """One line that names the field or file and row, what was found, what is allowed, and how to mend it."""
    line = f"{where}: found {show(found)}, allowed: {allowed}"
    return f"{line}; {mend}" if mend else line


def one_line(said: object, most: int | None = 300) -> str:
    r"""What an error or a server says, on one line of at most ``most`` characters.

    >>> one_line(ValueError("no such file:\n  model.bin"))
    'no such file: model.bin'
    """
    return safe(" ".join(str(said).split())[:most])


def limited(problems: Sequence[str], where: str, most: int = _MAX_PROBLEMS) -> list[str]:
    """The first ``most`` problems, and how many more there are."""
    hidden = len(problems) - most
    return [*problems[:most], *([f"{where}: {hidden} more problems"] if hidden > 0 else [])]


# A ValueError: pydantic collects those that validators raise, so that a user sees all of them at once.
class InputError(ValueError):
    """Bad input. ``problems`` holds one line for each thing that is wrong; all of them are shown at once."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        """Keep the problems, each on one line."""
        lines = [problems] if isinstance(problems, str) else list(problems)
        # Whatever a file or a server says, a message stays one line that fits a screen and steers no terminal.
        self.problems = [redacted(shortened(one_line(line, most=None))) for line in limited(lines, "and", _MAX_LINES)]
        super().__init__("\n".join(self.problems))


class Unanswered(RuntimeError):
    """A server that was asked stays silent. Nothing is wrong with the input; notes (PEP 678) say how to go on."""

    def __str__(self) -> str:
        """The reason and the notes, on one line."""
        said = "; ".join((super().__str__(), *getattr(self, "__notes__", ())))
        return redacted(shortened(one_line(said, most=None)))


class Problems:
    """What ``collecting`` has found wrong so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Note problems."""
        self.lines += lines

    def attempt(
        self, function: Callable[_Given, _Found], *arguments: _Given.args, **named: _Given.kwargs
    ) -> _Found | None:
        """What the function gives; None where it raises an InputError, whose problems are noted."""
        try:
            return function(*arguments, **named)
        except InputError as error:
            self.add(*error.problems)
            return None


@contextmanager
def collecting() -> Iterator[Problems]:
    """Go on checking after the first problem, and raise all of them, each once, at the end of the block.

    An InputError that leaves the block itself ends it, and is raised together with what was noted before.

    Raises:
        InputError: there were problems.

    >>> with collecting() as problems:
    ...     problems.add("size: found 0")
    ...     problems.add("seed: found -1")
    Traceback (most recent call last):
    valuedrift_mlflow.inputs.errors.InputError: size: found 0
    seed: found -1
    """
    problems = Problems()
    try:
        yield problems
    except InputError as error:
        problems.add(*error.problems)
    if problems.lines:
        # Each once: several stages may name the same bad thing. The first error is no cause of the others.
        raise InputError(list(dict.fromkeys(problems.lines))) from None


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put ``where`` before each problem that the block raises: the field that the bad thing was asked for by.

    >>> with naming("sft.data.mixed_in"):
    ...     raise InputError("data more.jsonl: found ...")
    Traceback (most recent call last):
    valuedrift_mlflow.inputs.errors.InputError: sft.data.mixed_in: data more.jsonl: found ...
    """
    try:
        yield
    except InputError as error:
        raise InputError([f"{where}: {line}" for line in error.problems]) from None


def traced_safely(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write a traceback as Python does, without secrets and without what steers a terminal (``sys.excepthook``).

    An error of a part that a user brings, or of a library, says whatever it was given.
    """
    said = "".join(traceback.format_exception(kind, error, trace))
    print(redacted(safe(said)), end="", file=sys.stderr)


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn the errors of users into their lines on stderr and exit code 2 (``VALUEDRIFT_DEBUG=1``: the traceback)."""
    try:
        yield
    except (InputError, Unanswered) as error:
        if os.environ.get("VALUEDRIFT_DEBUG") == "1":
            raise
        for line in str(error).splitlines():
            print(f"valuedrift: {line}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
