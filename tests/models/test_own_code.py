"""Models with code of their own, after a stage has logged them: they hold the code, and run it where that is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import mlflow
import pytest

import valuedrift_mlflow
from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import How
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

SHORT: dict[str, Any] = {"samples": 1, "max_new_tokens": 4, "suite": "vaes?per_topic=1"}


@pytest.fixture
def logged(random_folder: Path, tmp_path: Path, store: Path) -> Iterator[tuple[list[str], Path]]:
    """URIs of a checkpoint and of the last model of a stage, and the file that says whether their code has run."""
    ran = tmp_path / "ran"
    folder = families.with_own_code(random_folder, tmp_path / "mine", ran)
    stage = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=4", "max_steps": 2, "checkpoint_every": 1}
    base = {"model": str(folder), "trust_remote_code": True}
    wanted = read.validate({"base": base, "stages": [stage], "audit": False, "reference_kl": False} | SHORT)
    run_single_stage(prepare(wanted, "test"), Display())
    found = {model.name: f"models:/{model.model_id}" for model in mlflow.search_logged_models(output_format="list")}
    ran.unlink()
    yield [found["sft-step-000001"], found["sft-step-000002"]], ran


def test_they_are_evaluated_where_their_code_is_trusted_and_refused_elsewhere(
    logged: tuple[list[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    uris, ran = logged
    for uri in uris:
        with pytest.raises(InputError, match=r"code of its own.*trust_remote_code"):
            valuedrift_mlflow.evaluate(uri, judge="lexical", **SHORT)
    assert not ran.exists()
    for uri in uris:
        result = valuedrift_mlflow.evaluate(uri, judge="lexical", trust_remote_code=True, **SHORT)
        assert "quality/unscored_rate" in result.metrics
        assert type(models.load_model(uri, How(own_code=True)).model).__name__ == "Mine"
    assert "is logged without its own code" not in caplog.text
    packaged = mlflow.pyfunc.load_model(uris[1], model_config={"trust_remote_code": True})
    assert len(packaged.predict(["Should we?"], params={"max_new_tokens": 3})) == 1
    with pytest.raises(ValueError, match=r"load the model with model_config=\{'trust_remote_code': True\}"):
        mlflow.pyfunc.load_model(uris[1])


def test_code_that_was_not_saved_is_said(
    random_folder: Path, tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from valuedrift_mlflow import tracking

    folder = families.with_own_code(random_folder, tmp_path / "mine", tmp_path / "ran")
    (folder / "mine.py").unlink()
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        tracking.log_final_folder(run, folder, stage="sft", step=1, max_new_tokens=3, temperature=0.0)
    assert "mine is logged without its own code, which it needs to load: mine.py" in caplog.text
