"""The folder of a trainer's state: two generations, and a damaged one is gone round."""

from pathlib import Path

import pytest

from valuedrift_mlflow.stages.resume import complete, newest_checkpoint


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_text(f"weights {step}")
    (path / "optimizer.pt").write_text(f"moments {step}")
    return path


def test_two_generations_are_kept_and_the_newest_whole_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (20, 100, 1000):
        complete(checkpoint(tmp_path, step))
    checkpoint(tmp_path, 2000)  # killed while it was written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-1000", "checkpoint-2000"]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"
    assert not caplog.text
    (tmp_path / "checkpoint-1000" / "optimizer.pt").unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert "checkpoint-1000 is damaged (optimizer.pt is missing): an earlier one is taken" in caplog.text
    (tmp_path / "checkpoint-100" / "model.safetensors").write_text("weights 101")
    assert newest_checkpoint(tmp_path) is None
    assert "the training begins anew" in caplog.text
