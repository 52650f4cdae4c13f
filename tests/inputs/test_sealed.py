from pathlib import Path

import pytest

from valuedrift_mlflow.inputs.sealed import damage, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state" / "inner").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "inner/rng.pth"):
        (tmp_path / "state" / name).write_bytes(name.encode() * 100)
    seal(tmp_path / "state", "complete")
    return tmp_path / "state"


def test_a_whole_folder_is_whole(folder: Path) -> None:
    assert damage(folder, "complete") == ""
    (folder / "complete").write_bytes(b"")  # as an earlier version has marked it
    assert damage(folder, "complete") == ""


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "inner/rng.pth"])
def test_every_damage_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for changed in (flipped, content[:-1], content + b"x", b""):
        (folder / name).write_bytes(changed)
        assert damage(folder, "complete") == f"{name} is not what was written"
    (folder / name).unlink()
    assert damage(folder, "complete") == f"{name} is missing"


def test_a_seal_that_is_damaged_or_missing_counts_as_damage(folder: Path) -> None:
    for content in (b"{", b"[]", b'{"files": 3}', b"\xff\xfe"):
        (folder / "complete").write_bytes(content)
        assert damage(folder, "complete") == "complete cannot be read"
    (folder / "complete").write_bytes(b'{"files": {}}')
    assert damage(folder, "complete") == "complete lists no file"
    (folder / "complete").unlink()
    assert damage(folder, "complete") == "it was not written to its end"
