"""Models of the hub as they lie in its cache: of two commits the one is loaded that was asked for, and is told."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.files import commit_of, tokenizer_of

COMMITS = {"v1": "1" * 40, "v2": "2" * 40}


@pytest.fixture
def hub_id(random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of two commits, which differ in their longest text; ``main`` is the second."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "models--org--model"
    (root / "refs").mkdir(parents=True)
    for number, (name, commit) in enumerate(COMMITS.items()):
        folder = shutil.copytree(random_folder, root / "snapshots" / commit)
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | {"max_position_embeddings": 1024 + number}))
        (root / "refs" / name).write_text(commit)
    (root / "refs" / "main").write_text(COMMITS["v2"])
    return "org/model"


def test_a_pinned_model_is_that_commit(hub_id: str) -> None:
    for uri, positions, commit in (
        (hub_id, 1025, COMMITS["v2"]),
        (f"{hub_id}@v1", 1024, COMMITS["v1"]),
        (f"{hub_id}@{COMMITS['v1']}", 1024, COMMITS["v1"]),
    ):
        models.check_trainable(uri, "base.model")
        assert models.load_model(uri).model.config.max_position_embeddings == positions
        assert commit_of(uri) == commit
        assert tokenizer_of(uri) is not None


def test_a_revision_that_is_not_there_is_told(hub_id: str) -> None:
    with pytest.raises(InputError, match=r"org/model@v3"):
        models.load_model(f"{hub_id}@v3")


def test_folders_have_no_commit(random_folder: Path) -> None:
    assert commit_of(str(random_folder)) is None
    assert commit_of("embedded:base") is None
