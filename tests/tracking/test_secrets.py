"""What a run keeps is searched, file by file and in the database, for what was planted in its settings."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from valuedrift_mlflow import tracking

PLANTED = {
    "judge": "openai:/m?base_url=http://user:planted-password@localhost:1/v1",
    "reference": "s3://bucket/x.csv?token=planted-token-77",
    "note": "Authorization: Bearer planted1234567890",
    "key": "planted-in-the-environment",
}


def test_no_secret_is_anywhere_in_the_store(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED["key"])
    text = " ".join(PLANTED.values())
    with (
        pytest.raises(RuntimeError),
        tracking.run("evaluation", name=f"evaluate · {PLANTED['judge']}", parameters=PLANTED, recipe=text) as run,
    ):
        tracking.log_tags(run, PLANTED)
        tracking.describe(run, text)
        tracking.log_text(run, f"<p>{text}</p>", "report.html")
        source = {"uri": PLANTED["reference"]}
        tracking.log_dataset(run, pd.DataFrame({"a": ["b"]}), name="x", source=source, context="evaluation")
        raise RuntimeError(text)
    kept = mlflow.get_run(run.run_id)
    assert "http://***@localhost:1/v1" in kept.data.params["judge"]
    assert "***" in kept.data.tags["mlflow.note.content"]
    files = [file for file in store.rglob("*") if file.is_file()] + list(Path.cwd().glob("mlflow.db*"))
    assert any(file.suffix == ".db" for file in files)
    for file in files:
        for secret in (b"planted-password", b"planted-token", b"planted1234567890", b"planted-in-the-environment"):
            assert secret not in file.read_bytes(), file
