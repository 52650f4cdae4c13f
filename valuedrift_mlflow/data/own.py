"""Formats that users bring: ``module:function``, or the name that an installed package gives one.

The function gets one row, a dictionary, and returns it as a row of one of the ``RETURNED`` formats; that format's own
reader takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from valuedrift_mlflow.data.formats import FORMATS, Format
from valuedrift_mlflow.data.messages import Outcome, Raw
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.parts import Registry

# The more columns the earlier: a row of pairs has a prompt, too.
RETURNED = ("pairs", "messages", "labelled", "prompt-completion", "prompt")  # in the order in which they are tried
Function = Callable[[dict[str, object]], object]
# That a built-in name is not taken by a package, the registry sees; the formats themselves are in a table.
_FUNCTIONS: Registry[Function] = Registry(
    "valuedrift_mlflow.formats",
    "function",
    dict.fromkeys(FORMATS, "valuedrift_mlflow.data.formats:Format"),
    ", ".join(("auto", *FORMATS, "module:function")),
)


def function(name: str) -> Function | None:
    """The function that a format's name stands for; None for a format of this package.

    Raises:
        InputError: nothing has this name, or it cannot be imported.
    """
    function = _FUNCTIONS.get(name, "data.format")
    return None if name in FORMATS else function


def known(function: Function, raws: Iterable[Raw], rows: int) -> tuple[Format | None, list[tuple[Raw, str]]]:
    """The format of what a function makes, by the first good one of so many rows; the bad rows before it."""
    bad: list[tuple[Raw, str]] = []
    for raw in islice((raw for raw in raws if raw.row is not None), rows):
        _, name, reason = _made(function, raw)
        if not reason:
            kind = FORMATS[name].kind
            return Format(kind, (), _reader(function, kind)), bad
        bad.append((raw, reason))
    return None, bad


def _made(function: Function, raw: Raw) -> tuple[Raw, str, str]:
    """A row as a function returns it, the format that it then has, or the reason why it is none."""
    try:
        # A copy: the function may change what it is given.
        returned = function(dict(raw.row or {}))
    except Exception as error:  # it is the user's code
        return raw, "", f"{type(error).__name__}: {one_line(error)}"
    if not isinstance(returned, Mapping):
        return raw, "", f"the function returned {returned!r}, expected a row (a dict)"
    name = next((name for name in RETURNED if set(FORMATS[name].columns) <= set(returned)), "")
    if not name:
        allowed = "; ".join(", ".join(FORMATS[name].columns) for name in RETURNED)
        return raw, "", f"the function returned {', '.join(map(str, returned)) or 'no keys'}, expected {allowed}"
    return raw._replace(row=returned), name, ""


def _reader(function: Function, kind: Kind) -> Callable[[Iterable[Raw]], Iterator[Outcome]]:
    def outcomes(raws: Iterable[Raw]) -> Iterator[Outcome]:
        for raw in raws:
            made, name, reason = _made(function, raw)
            if not reason and FORMATS[name].kind != kind:
                reason = f"the function returned {', '.join(map(str, made.row or ()))}, of other rows {kind}"
            if reason:
                yield Outcome(raw, bad=reason)
            else:
                yield from (outcome._replace(raw=raw) for outcome in FORMATS[name].read([made]))

    return outcomes
