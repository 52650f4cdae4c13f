"""Modules that users name: which may be named, where they lie and what they define, without importing them."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from valuedrift_mlflow.inputs.errors import InputError, problem

_OURS = "valuedrift_mlflow"
# Of this package, what is a part as users bring them. Any other of its functions would be a way round its checks.
_PARTS_OF_OURS = frozenset({f"{_OURS}.embedded.rewards"})
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_looked_up: ContextVar[list[str] | None] = ContextVar("looked_up", default=None)


class NotImported(Exception):
    """Something depends on a part that is not imported, as the job is only looked at."""

    def __init__(self, said: str) -> None:
        """Keep what the plan says of the part."""
        super().__init__(said)
        self.said = said


@contextmanager
def only_looked_up() -> Iterator[list[str]]:
    """No module of a user is imported in here; the list gets a line for each that would be."""
    noted = _looked_up.get()
    said: list[str] = [] if noted is None else noted
    before = _looked_up.set(said)
    try:
        yield said
    finally:
        _looked_up.reset(before)


def imports() -> bool:
    """Whether modules of users are imported here."""
    return _looked_up.get() is None


def note(uri: str, field: str, place: str) -> str:
    """Note a part for the plan that would be imported; returns the line."""
    said = f"{field} {uri} is code of your own, imported when the job starts ({place})"
    noted = _looked_up.get()
    if noted is not None and said not in noted:
        noted.append(said)
    return said


def find_object(uri: str, field: str, what: str) -> str:
    """Find what ``module:object`` names without importing anything; returns where the module lies.

    Raises:
        InputError: the module may not be named, is not there, is no Python, or does not define the object.
    """
    name, _, attribute = uri.partition(":")
    _check_allowed(name, uri, field, what)
    spec = _spec(name)
    if spec is None:
        allowed = f"module:{what} that can be imported"
        raise InputError(problem(field, uri, allowed, f"ModuleNotFoundError: No module named {name!r}"))
    file = Path(spec.origin) if spec.origin else None
    if file is None or file.suffix != ".py":  # compiled, or a package without a file: importing it will tell
        return str(file or name)
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        allowed = f"module:{what} that can be imported"
        raise InputError(problem(field, uri, allowed, f"{type(error).__name__}: {error}")) from None
    if not _defines(tree, attribute):
        raise InputError(problem(field, uri, f"a {what} that {name} has"))
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)


def _check_allowed(name: str, uri: str, field: str, what: str) -> None:
    """Refuse modules that are no part of anybody's experiment: a recipe could call any function of theirs.

    Raises:
        InputError: it is a module of Python, of this package, or of a library that this package needs.
    """
    top = name.partition(".")[0]
    allowed = f"module:{what} of your own, beside the recipe or in an installed package"
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        raise InputError(problem(field, uri, allowed, f"{top} is a module of Python itself"))
    if top == _OURS:
        if name not in _PARTS_OF_OURS:
            raise InputError(problem(field, uri, allowed, f"of {_OURS} itself: {', '.join(_PARTS_OF_OURS)}"))
        return
    owners = packages_distributions().get(top, [])
    if owners and all(_plain(owner) in _libraries() for owner in owners):
        raise InputError(problem(field, uri, allowed, f"{top} is a library that {_OURS} itself needs"))


@cache
def _libraries() -> frozenset[str]:
    """The distributions that this package needs, with all that they need in turn, extras too."""
    known: set[str] = {"pip", "setuptools", "wheel"}
    waiting = ["valuedrift-mlflow"]
    while waiting:
        try:
            needed = requires(waiting.pop()) or []
        except PackageNotFoundError:
            continue
        names = {_plain(found[0]) for line in needed if (found := _NAME.match(line))}
        waiting += names - known
        known |= names
    return frozenset(known)


def _plain(distribution: str) -> str:
    """A distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies. ``importlib.util.find_spec`` would import the packages above it."""
    whole, places, spec = "", [*sys.path, os.getcwd()], None
    for part in name.split("."):
        whole = f"{whole}.{part}" if whole else part
        try:
            spec = PathFinder.find_spec(whole, places)
        except (ImportError, ValueError, OSError):
            return None
        if spec is None:
            return _of_finders(whole) if whole == part else None
        places = list(spec.submodule_search_locations or ())
    return spec


def _of_finders(name: str) -> ModuleSpec | None:
    """As other finders know a module, such as those of an editable install; a top-level name imports nothing."""
    for finder in sys.meta_path:
        spec = getattr(finder, "find_spec", lambda *_: None)(name, None)
        if isinstance(spec, ModuleSpec):
            return spec
    return None


def _defines(tree: ast.Module, name: str) -> bool:
    """Whether a module may have a name: it is bound in it, or what is bound cannot be told without running it."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if node.name in (name, "__getattr__"):
                    return True
            case ast.Name(id=bound, ctx=ast.Store()) if bound == name:
                return True
            case ast.alias(name=bound, asname=alias):
                if (alias or bound.partition(".")[0]) == name or bound == "*":
                    return True
            case ast.Call(func=ast.Name(id="globals" | "setattr" | "exec" | "vars")):
                return True
    return False
