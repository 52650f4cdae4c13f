"""Parts that users bring: judges, formats, suites, algorithms and rewards that are not of this package.

Two doors lead in. ``module:object`` names what stands in a module beside the recipe, or in any installed one. An
installed package can also give its parts names, as entry points of the groups ``valuedrift_mlflow.judges``,
``.formats``, ``.suites`` and ``.algorithms``:

    [project.entry-points."valuedrift_mlflow.judges"]
    mine = "my_package:MyJudge"
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Generic, TypeVar, cast

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.modules import NotImported, find_object, imports, note

_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_POINT = re.compile(r"[\w.]+\s*(:\s*[\w.]+)?\s*(\[.*\])?")  # a module, what to take from it, extras
_OF_THE_USERS = (Exception, SystemExit)  # code of users may raise anything, and a script exits where it is imported
_Part = TypeVar("_Part", bound=Callable[..., object])


def is_object(text: str) -> bool:
    """Whether a text has the form ``module:object``.

    A prefix of this package has it too (``hf:gpt2``, ``embedded:sft``): those that a place knows, it asks for first.

    >>> is_object("my_rewards:shorter"), is_object("runs:/0a1b/model")
    (True, False)
    """
    return _OBJECT.fullmatch(text) is not None


def load_object(uri: str, field: str, what: str) -> Callable[..., object]:
    """Import what a user names as ``module:object``; modules in the working folder are found as well.

    Args:
        uri: the name.
        field: where the user has written it, such as ``ppo.reward``.
        what: what it is to be, such as ``function`` or ``class``.

    Raises:
        InputError: it is no module of the user's, cannot be imported, or has nothing of this name that can be called.
        NotImported: the job is only looked at; the module was found.
    """
    place = find_object(uri, field, what)
    if not imports():
        raise NotImported(note(uri, field, place))
    return import_object(uri, field, what)


def import_object(uri: str, field: str, what: str) -> Callable[..., object]:
    """Import ``module:object``, whoever it is from; for names that no user has written.

    Raises:
        InputError: as ``load_object``.
    """
    name, _, attribute = uri.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside the recipe; last, so that it hides no library
    try:
        module = import_module(name)
        part: object = getattr(module, attribute, None)
    except _OF_THE_USERS as error:
        raise InputError(problem(field, uri, f"module:{what} that can be imported", _reason(error))) from error
    if not callable(part):
        mend = "" if part is None else f"{attribute} is of type {type(part).__name__}"
        raise InputError(problem(field, uri, f"a {what} that {name} has", mend))
    return part


def plugins(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """The parts that installed packages name in a group, in the order of their names; nothing is imported.

    Two packages may give the same name, which is an error only where it is asked for.
    """
    by_name: dict[str, tuple[EntryPoint, ...]] = {}
    # With the path: what is installed or added later must be found, although the answer is remembered.
    for point in _installed(group, tuple(sys.path)):
        by_name[point.name] = (*by_name.get(point.name, ()), point)
    return dict(sorted(by_name.items()))


@lru_cache(maxsize=8)  # to look through all installed packages takes a tenth of a second
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    """The entry points of a group; ``path`` is where packages are looked for: after a change it is done anew."""
    return entry_points(group=group)


def load_plugin(group: str, name: str, field: str, what: str) -> Callable[..., object]:
    """Import the part that an installed package has given a name.

    Raises:
        InputError: no package gives this name, or two do; the part cannot be imported, or not be called.
        NotImported: the job is only looked at.
    """
    given = plugins(group).get(name, ())
    if not given:
        raise InputError(problem(field, name, known(group, f"module:{what}")))
    # Which of two packages would win hangs on the order in which they were installed.
    if len(given) > 1:
        raise _ambiguous(name, field, what, given)
    [point] = given
    if not _POINT.fullmatch(point.value.strip()):  # each version of importlib.metadata fails in another way
        mend = f"{_origin(point)} is not of the form module:{what}"
        raise InputError(problem(field, name, f"a {what} that can be imported", mend))
    if not imports():
        raise NotImported(note(name, field, _origin(point)))
    try:
        part: object = point.load()
    except _OF_THE_USERS as error:
        mend = f"{_origin(point)}: {_reason(error)}"
        raise InputError(problem(field, name, f"a {what} that can be imported", mend)) from error
    if not callable(part):
        raise InputError(problem(field, name, f"a {what}", f"{_origin(point)} is of type {type(part).__name__}"))
    return part


def known(group: str, built_in: str) -> str:
    """What an error message allows: ``built_in``, and the names that installed packages give."""
    names = ", ".join(plugins(group))
    return f"{built_in}, and from installed packages: {names}" if names else built_in


@dataclass(frozen=True)
class Registry(Generic[_Part]):
    """The parts of one kind by name: this package's own, those of installed packages, and any ``module:object``.

    ``_Part`` is the type that the place has which calls them. What a user brings is imported, and can be called;
    whether it then does what is asked of it, the place that calls it sees.

    Attributes:
        group: the group of entry points, such as ``valuedrift_mlflow.judges``.
        what: what a part is to be, such as ``class``.
        built_in: the parts of this package, each ``module:object``, imported when it is asked for.
        allowed: how error messages name the parts of this package, where their names alone do not say enough.
    """

    group: str
    what: str
    built_in: Mapping[str, str]
    allowed: str = ""

    def names(self) -> list[str]:
        """The names of this package's parts, in their order, then those that installed packages give."""
        return list(dict.fromkeys([*self.built_in, *plugins(self.group)]))

    def get(self, name: str, field: str) -> _Part:
        """The part of a name, imported.

        Raises:
            InputError: nothing has this name, or several parts have it; the part of a user cannot be imported.
        """
        given = plugins(self.group).get(name, ())
        if name in self.built_in:
            own = EntryPoint(name, self.built_in[name], self.group)
            if given:
                raise _ambiguous(name, field, self.what, [own, *given])
            return cast(_Part, own.load())
        if given:
            return cast(_Part, load_plugin(self.group, name, field, self.what))
        if is_object(name):
            return cast(_Part, load_object(name, field, self.what))
        built_in = self.allowed or ", ".join([*self.built_in, f"module:{self.what}"])
        raise InputError(problem(field, name, known(self.group, built_in)))


def _ambiguous(name: str, field: str, what: str, given: Sequence[EntryPoint]) -> InputError:
    mend = f"{' and '.join(map(_origin, given))} have it: uninstall all but one, or write module:{what}"
    return InputError(problem(field, name, "a name that one part has", mend))


def _origin(point: EntryPoint) -> str:
    """What an entry point names, and the package that has it."""
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "valuedrift-mlflow"
    return f"{point.value} ({package})"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
