"""The one reader of what users bring as files: bytes, what is packed, how deep it is nested, and its text.

Everything that is read whole goes through here. Its limits are stated where it refuses, and can be set by environment
variables: ``VALUEDRIFT_MAX_TABLE_MB`` (a table or a json file that is read whole, unpacked), ``VALUEDRIFT_MAX_ROW_MB``
(one row of data) and ``VALUEDRIFT_MAX_SETTINGS_MB`` (a recipe, a design, a model's configuration).
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, cast

import yaml

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem

_MEGABYTE = 1 << 20
_MOST_GROWTH = 200  # times the packed size: texts of people grow to 3 to 20
_FREE_BYTES = 64 * _MEGABYTE  # to which any file may grow
_DEEPEST = 100  # lists and mappings in one another
_MOST_NODES = 100_000  # of YAML, where what an alias stands for counts each time


@dataclass(frozen=True)
class Limit:
    """The most bytes of something that is read."""

    variable: str
    default_mb: int

    @property
    def most(self) -> int:
        """In bytes.

        Raises:
            InputError: what the environment variable says is no number of megabytes.
        """
        given = os.environ.get(self.variable, "")
        if not given:
            return self.default_mb * _MEGABYTE
        if not (given.isascii() and given.isdecimal() and 0 < len(given) < 8 and int(given)):
            raise InputError(problem(self.variable, given, "a whole number of megabytes"))
        return int(given) * _MEGABYTE

    def refusal(self, where: str) -> InputError:
        """The error where there is more."""
        most = self.most // _MEGABYTE
        mend = f"make it smaller, or raise the limit: {self.variable}={4 * most}"
        return InputError(problem(where, f"more than {most:,} MB", f"at most {most:,} MB, unpacked", mend))


TABLE = Limit("VALUEDRIFT_MAX_TABLE_MB", 1_000)
ROW = Limit("VALUEDRIFT_MAX_ROW_MB", 64)
SETTINGS = Limit("VALUEDRIFT_MAX_SETTINGS_MB", 4)


def user_path(text: str, where: str = "path") -> Path:
    """The path that a user has written, with ``~`` expanded; a path that nothing can have is refused.

    Raises:
        InputError: it has a NUL, a name of more than 255 bytes, or the home of somebody unknown.
    """
    encoded = text.encode(errors="replace")
    if "\0" in text or len(encoded) > 4_000 or any(len(part) > 255 for part in encoded.split(b"/")):
        raise InputError(problem(where, text, "a path: names of at most 255 bytes, without NUL"))
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody, or no home at all
        raise InputError(problem(where, text, "a path of this machine", one_line(error))) from None


def output_path(text: str) -> Path:
    """Where a user wants something written; a path that climbs is resolved, so that what is shown is where it is.

    Raises:
        InputError: as ``user_path``.
    """
    path = user_path(text, "output")
    return path.resolve() if ".." in path.parts else path


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked by what it is, whatever its name says.

    Raises:
        OSError: it cannot be opened.
    """
    inner = _unpacked(path)
    return path.open("rb") if inner is None else cast("IO[bytes]", io.BufferedReader(_Unpacking(path, inner)))


def _unpacked(path: Path) -> IO[bytes] | None:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(path))
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow

        return cast("IO[bytes]", pyarrow.input_stream(str(path), compression="zstd"))
    return None


class _Unpacking(io.RawIOBase):
    """A packed file that is refused once it has grown more than any texts that people have written do."""

    def __init__(self, path: Path, inner: IO[bytes]) -> None:
        super().__init__()
        self._path, self._inner, self._read = path, inner, 0
        self._most = max(_FREE_BYTES, _MOST_GROWTH * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._inner.read(len(buffer))
        self._read += len(piece)
        if self._read > self._most:
            allowed = f"at most {_MOST_GROWTH} times its size where that is more than {_FREE_BYTES // _MEGABYTE} MB"
            raise InputError(problem(str(self._path), "a packed file that grows without end", allowed, "unpack it"))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._inner.close()
        super().close()


def read_bytes(path: Path, where: str, limit: Limit = TABLE) -> bytes:
    """What a file holds, unpacked.

    Raises:
        InputError: it cannot be read, is no whole packed file, or holds more than the limit.
    """
    pieces, left = [], limit.most
    try:
        with opened(path) as file:
            while piece := file.read(min(_MEGABYTE, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise limit.refusal(where)
                pieces.append(piece)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, InputError):
            raise
        reason = f"not a whole packed file ({one_line(error)})" if _is_packed(path) else one_line(error)
        raise InputError(problem(where, reason, "a file that can be read")) from None
    return b"".join(pieces)


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst") and path.is_file()


def text_of(data: bytes, where: str) -> str:
    """The text of a file: UTF-8, with a byte order mark or without, or UTF-16 that begins with one.

    Raises:
        InputError: it is in another encoding; with the line of the first byte that is none.
    """
    kind = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(kind)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = f"bytes that are not {kind.removesuffix('-sig').upper()}, first in line {line}"
        raise InputError(problem(where, found, "text in UTF-8", "save it as UTF-8")) from None


def json_of(text: str | bytes) -> object:
    """What a JSON text holds.

    Raises:
        ValueError: it holds none, or is nested more deeply than any settings or rows are.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists and objects nested too deeply") from None


def yaml_of(text: str) -> object:
    """What a YAML text holds: texts, numbers, truth values, lists and mappings.

    Raises:
        ValueError: it is none, or stands for more than a person has written.
    """
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None
    except RecursionError:
        raise ValueError("lists and mappings nested too deeply") from None


def own_yaml(name: str) -> Any:
    """What a YAML file of this package holds; ``name`` is its path within it."""
    text = files("valuedrift_mlflow").joinpath(name).read_text(encoding="utf-8")
    # Ten times faster than PyYAML's own, where the library was there when PyYAML was built.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def settings_of(path: Path, where: str) -> object:
    """What a YAML file of settings holds.

    Raises:
        InputError: it cannot be read, or is no YAML.
    """
    text = text_of(read_bytes(path, where, SETTINGS), where)
    try:
        return yaml_of(text)
    except ValueError as error:
        raise InputError(problem(where, one_line(error), "a YAML mapping")) from None


class _Yaml(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML reads ``1e-5`` as a string. No key twice, of which PyYAML takes the last; no other types.

    Dates stay the texts that they are.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {name} twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _count(root: yaml.Node) -> None:
    """Refuse what stands for more than a person has written: aliases of aliases, a list in itself.

    Raises:
        yaml.YAMLError: it does.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in open_nodes:
            raise yaml.YAMLError("an anchor that holds itself")
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"lists and mappings more than {_DEEPEST} deep")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            inner = _children(node)
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in inner)
            open_nodes.discard(id(node))
        if sizes[id(node)] > _MOST_NODES:
            raise yaml.YAMLError(f"more than {_MOST_NODES:,} values, with those that aliases stand for")
        return sizes[id(node)]

    size(root, 0)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


_FLOAT, _DATE = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
# Of the class alone: PyYAML would else change its own SafeLoader for everybody.
_Yaml.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in known if tag != _DATE]
    for start, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_FLOAT, re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
_OTHER = ("set", "omap", "pairs", "binary", "timestamp")
_Yaml.yaml_constructors = {
    tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if str(tag).rpartition(":")[2] not in _OTHER
}


def json_object(file: Path) -> dict[str, object] | None:
    """The object in a small JSON file, such as a model's configuration; None where it holds none or is not there."""
    try:
        found = json_of(text_of(read_bytes(file, str(file), SETTINGS), str(file)))
    except ValueError:  # an InputError too
        return None
    return found if isinstance(found, dict) else None
