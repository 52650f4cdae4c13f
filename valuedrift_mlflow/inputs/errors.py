"""The one error a user can mend: raised before any computing, shown without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

EXIT_CODE = 2


def problem(where: str, found: object, allowed: str, mend: str = "") -> str:
    """One line that names the field or file and row, what was found, what is allowed, and how to mend it."""
    line = f"{where}: found {found!r}, allowed: {allowed}"
    return f"{line}; {mend}" if mend else line


class InputError(ValueError):
    """Bad input. ``problems`` holds one line for each thing that is wrong; all of them are shown at once."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        """Keep the problems, each on one line."""
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(" ".join(line.split()) for line in self.problems))


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn an InputError into its lines on stderr and exit code 2 (``VALUEDRIFT_DEBUG=1`` shows the traceback)."""
    try:
        yield
    except InputError as error:
        if os.environ.get("VALUEDRIFT_DEBUG") == "1":
            raise
        for line in str(error).splitlines():
            print(f"valuedrift: {line}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
