"""What a run began with is what it goes on with: models that changed since are refused, and a dry run says so too."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.evaluation.callback import TrainingLog
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.processes import Process
from valuedrift_mlflow.models.fingerprint import fingerprint
from valuedrift_mlflow.pipeline.pipeline import run_pipeline, run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.tracking.lease import Owner

SFT = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=8", "max_steps": 2, "batch_size": 2}
SHORT: dict[str, Any] = {"samples": 1, "max_new_tokens": 4, "suite": "vaes?per_topic=1&topics=religion", "audit": False}


def tree(model: str, **stage: object) -> dict[str, Any]:
    return {"base": {"model": model}, "stages": [SFT | stage], **SHORT}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a recipe until its first step, at which it fails; gives the id of the run that can be taken up."""

    def until_it_fails(recipe: dict[str, Any], run: Callable[..., Any] = run_single_stage) -> str:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr(TrainingLog, "on_step_end", fail)
            with pytest.raises(OSError, match="no space left"):
                run(prepare(read.validate(recipe), "tiny"), Display())
        roles = ("pipeline", "stage")
        found = MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id])
        own = [one for one in found if one.data.tags.get("valuedrift.role") in roles]
        return next(one.info.run_id for one in own if "mlflow.parentRunId" not in one.data.tags)

    return until_it_fails


def flip(file: Path) -> None:
    """Change the last byte of a file, which of weights is a number still."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_tokens(file: Path) -> None:
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"model_max_length": 77}))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        pytest.param("model.safetensors", flip, id="weights"),
        # The same files are hashed, whatever is in them.
        pytest.param("tokenizer_config.json", other_tokens, id="tokens", marks=pytest.mark.slow),
    ],
)
def test_a_folder_that_changed_is_refused(
    store: Path, random_folder: Path, failing: Callable[..., str], file: str, change: Callable[[Path], None]
) -> None:
    folder = Path(shutil.copytree(random_folder, store / "start"))
    stopped = failing(tree(str(folder)))
    plan = prepare(read.validate(tree(str(folder))), "tiny")
    kept = (folder / file).read_bytes()
    change(folder / file)
    with pytest.raises(
        InputError, match=r"base\.model: found '.*start, which is sha256:.*, allowed: sha256:.*put that"
    ):
        run_single_stage(plan, Display(), stopped)
    (folder / file).write_bytes(kept)
    (folder / "README.md").write_text("Nothing that is read of a model.")
    assert run_single_stage(plan, Display(), stopped).run_id == stopped


@pytest.mark.slow
def test_an_alias_that_moved_is_refused(registered: str, failing: Callable[..., str]) -> None:
    client, recipe = MlflowClient(), tree("models:/assistant@champion")
    client.set_registered_model_alias("assistant", "champion", "1")
    stopped = failing(recipe, run_pipeline)
    loaded = models.load_model(registered)
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        other = tracking.log_final_model(
            run, loaded.model, loaded.tokenizer, stage="dpo", step=1, max_new_tokens=4, temperature=1.0
        )
    version = mlflow.register_model(f"models:/{other}", "assistant").version
    client.set_registered_model_alias("assistant", "champion", version)
    with pytest.raises(InputError, match=rf"base\.model: found 'models:/assistant@champion, which is models:/{other} "):
        run_pipeline(prepare(read.validate(recipe), "tiny"), Display(), stopped)


def test_a_fingerprint_reaches_what_adapters_lie_on(random_folder: Path, tmp_path: Path) -> None:
    below, adapters = Path(shutil.copytree(random_folder, tmp_path / "below")), tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(below)}))
    before = fingerprint(str(adapters))
    flip(below / "model.safetensors")
    assert fingerprint(str(adapters)) != before
    assert fingerprint("embedded:base") == ""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit code of a command and what it prints."""
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_dry_run_says_whether_a_run_can_be_taken_up(
    store: Path, random_folder: Path, failing: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(random_folder, store / "start"))
    recipe = tree(str(folder))
    (store / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    stopped = failing(recipe, run_pipeline)
    asked = ("main", "--recipe", "tiny.yaml", "--dry-run", "--resume")
    ours, theirs = len(mlflow.search_runs()), mlflow.get_run(stopped).data.tags
    code, shown, _ = said(capsys, *asked, stopped)
    assert code == 0 and "finished, kept" in shown and "sft (run" in shown
    for other, told in (
        ((*asked, "nobody"), "--resume: found 'nobody', allowed: the id of a run"),
        ((*asked, stopped, "--set", "sft.batch_size=4"), "sft.batch_size: found '4', allowed: 2, as run"),
        (("sft", *asked[1:], stopped), "allowed: a run of a single stage"),
        (("ablate", "--dry-run", "--design", "algorithms", "--resume", stopped), "allowed: a run of an ablation"),
    ):
        code, _, shown = said(capsys, *other)
        assert code == 2 and told in shown and "Traceback" not in shown
    Owner("its token", Process("node7", "another place", "another boot", 4711, "1"), 15, time.time()).write(stopped)
    code, _, shown = said(capsys, *asked, stopped)
    assert code == 2 and "owned by process 4711 on node7" in shown
    MlflowClient().delete_tag(stopped, "valuedrift.owner")
    flip(folder / "model.safetensors")
    code, _, shown = said(capsys, *asked, stopped)
    assert code == 2 and "base.model: found" in shown
    assert len(mlflow.search_runs()) == ours
    assert mlflow.get_run(stopped).data.tags == theirs
    MlflowClient().set_terminated(stopped)
    code, _, shown = said(capsys, *asked, stopped)
    assert code == 2 and "finished', allowed: a run that was stopped or has failed" in shown
