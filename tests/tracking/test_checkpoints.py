"""A checkpoint is a model of MLflow like the last one of a stage: it loads, evaluates, registers and answers."""

import contextlib
import gc
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow import MlflowClient

from valuedrift_mlflow import models, suite, tracking
from valuedrift_mlflow.models import Loaded

ANSWERING: tracking.Answering = {"max_new_tokens": 6, "temperature": 0.0}
PROMPTS = ["Should abortion be legal?", "Why?"]
CHAT = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 3, "temperature": 0.0}


@pytest.fixture
def checkpoint(store: Path, random_folder: Path) -> tuple[str, str]:
    """The URIs of a checkpoint of all weights: of its LoggedModel and of its artifacts."""
    folder = Path(shutil.copytree(random_folder, store / "saved"))
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        model_id = tracking.log_checkpoint(run, folder, stage="sft", step=20, answering=ANSWERING)
    return f"models:/{model_id}", f"runs:/{active.info.run_id}/checkpoints/step-000020"


def size(uri: str) -> int:
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_checkpoint_loads_by_each_of_its_names_and_has_its_weights_once(
    checkpoint: tuple[str, str], random_folder: Path
) -> None:
    by_id, by_run = checkpoint
    mlflow.register_model(by_id, "assistant")
    truth = models.load_model(str(random_folder)).model.state_dict()
    said = mlflow.pyfunc.load_model(by_id).predict(PROMPTS)
    assert len(said) == 2
    for uri in (by_id, by_run, "models:/assistant/1"):
        assert mlflow.pyfunc.load_model(uri).predict(PROMPTS) == said
        weights = models.load_model(uri).model.state_dict()
        assert all(bool((weights[name] == truth[name]).all()) for name in truth)
        assert tracking.pinned(uri) == by_id
    assert size("models:/assistant/1") < 50_000 < size(by_run)


def test_a_chat_request_is_answered_by_a_chat_completion(checkpoint: tuple[str, str]) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    model = mlflow.pyfunc.load_model(checkpoint[0])
    client = TestClient(init(model))  # what `mlflow models serve` serves
    answer = client.post("/invocations", json=CHAT).json()
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 3
    assert choice["message"]["content"] == model.predict(PROMPTS[:1], params={"max_new_tokens": 3})[0]
    assert len(client.post("/invocations", json={"inputs": PROMPTS}).json()["predictions"]) == 2


def test_an_adapter_loads_on_the_base_that_it_names(store: Path, random_folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    below = models.load_model(str(random_folder))
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        base = tracking.log_final_model(run, below.model, below.tokenizer, stage="base", step=0, **ANSWERING)
        below.model.name_or_path = f"models:/{base}"
        adapted = get_peft_model(below.model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        adapted.save_pretrained(store / "adapter")
        below.tokenizer.save_pretrained(store / "adapter")
        model_id = tracking.log_checkpoint(run, store / "adapter", stage="sft", step=5, answering=ANSWERING)
    packaged = models.unwrap(mlflow.pyfunc.load_model(f"models:/{model_id}"))
    assert isinstance(packaged, Loaded)
    ids = torch.tensor([list(below.tokenizer(PROMPTS[0])["input_ids"])])
    with torch.no_grad():
        truth = adapted.eval()(input_ids=ids).logits
        for model in (packaged.model, models.load_model(f"models:/{model_id}").model):
            torch.testing.assert_close(model(input_ids=ids).logits, truth, atol=1e-4, rtol=1e-4)
    requirements = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"), "requirements.txt").read_text()
    assert "peft==" in requirements


@pytest.mark.parametrize("name", [0, 1], ids=["models", "runs"])
def test_mlflow_evaluates_a_checkpoint_and_links_the_result(checkpoint: tuple[str, str], name: int) -> None:
    asked = suite.load("vaes?topics=religion&per_topic=2").frame()
    settings = {"samples": 1, "max_new_tokens": 4}
    for _ in range(2):
        result = mlflow.models.evaluate(
            checkpoint[name],
            asked,
            model_type="value-drift",
            evaluators="value_drift",
            evaluator_config=settings,
        )
    linked = mlflow.get_logged_model(checkpoint[0].removeprefix("models:/")).metrics
    assert [metric.value for metric in linked if metric.key == "quality/unscored_rate"] == [
        result.metrics["quality/unscored_rate"]
    ] * 2
    assert MlflowClient().get_run(result.run_id).info.run_name


@pytest.mark.slow
def test_what_a_server_has_is_fetched_and_not_kept(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP with proxied artifacts: a checkpoint and a whole model load, and nothing of them stays on the disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    kept = ["--backend-store-uri", f"sqlite:///{store}/mlflow.db", "--artifacts-destination", str(store / "kept")]
    where = ["--port", address.rpartition(":")[2], "--workers", "1"]
    served = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *where, *kept])
    try:
        for _ in range(180):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{address}/health", timeout=5).ok:
                    break
            time.sleep(1)
        mlflow.set_tracking_uri(address)
        mlflow.set_experiment("over http")
        folder = Path(shutil.copytree(random_folder, store / "saved"))
        below = models.load_model(str(random_folder))
        with mlflow.start_run() as active:
            run = tracking.OpenRun(active.info.run_id)
            step = tracking.log_checkpoint(run, folder, stage="sft", step=1, answering=ANSWERING)
            last = tracking.log_final_model(run, below.model, below.tokenizer, stage="sft", step=2, **ANSWERING)
        (store / "fetched").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(store / "fetched"))
        for model_id in (step, last):
            assert models.load_generator(f"models:/{model_id}") is not None
        assert mlflow.pyfunc.load_model(f"models:/{step}").predict(["Why?"])
        gc.collect()
        assert not list((store / "fetched").rglob("*.safetensors"))
    finally:
        served.terminate()
        served.wait()
