"""What tests of users' parts share: packages as pip leaves them, and modules that are forgotten afterwards."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest


def install(site: Path, package: str, names: Mapping[str, Mapping[str, str]], code: str) -> None:
    """What ``pip install`` leaves in ``site`` of a package with one module of the same name; names by group."""
    about = site / f"{package}-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    groups = (
        f"[valuedrift_mlflow.{group}]\n" + "".join(f"{name} = {value}\n" for name, value in own.items())
        for group, own in names.items()
    )
    (about / "entry_points.txt").write_text("\n".join(groups))
    (site / f"{package}.py").write_text(code)


@contextmanager
def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder; what it puts on the path and what is imported from it are gone afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    yield folder
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and folder in Path(file).parents:
            del sys.modules[name]
