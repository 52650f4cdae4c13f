"""Many models evaluated together come out as each of them alone."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import auto

SETTINGS: dict[str, Any] = {
    "suite": "vaes?topics=religion,abortion&per_topic=2",
    "judge": "lexical",
    "samples": 2,
    "max_new_tokens": 12,
    "reuse_responses": False,
}


def logged(source: Path, scratch: Path) -> list[str]:
    """Two checkpoints and one of adapters on the first, as a stage logs them."""
    from peft import LoraConfig, get_peft_model

    loaded, uris = models.load_model(str(source)), list[str]()
    with tracking.run("stage", stage="sft") as run:
        for step in (1, 2):
            torch.manual_seed(step)
            with torch.no_grad():
                for weight in loaded.model.parameters():
                    weight.add_(0.3 * torch.randn_like(weight))
            folder = scratch / str(step)
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            uris.append(tracking.uri_of(run, tracking.log_checkpoint(run, folder, stage="sft", step=step), step))
        loaded.model.name_or_path = loaded.model.config.name_or_path = uris[0]
        policy = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        policy.save_pretrained(str(scratch / "adapters"))
        loaded.tokenizer.save_pretrained(scratch / "adapters")
        uris.append(tracking.uri_of(run, tracking.log_checkpoint(run, scratch / "adapters", stage="dpo", step=3), 3))
    return uris


def shown(metrics: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not key.startswith("cost/")}


def test_each_comes_out_as_alone_and_the_base_is_loaded_once(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris, baseline = logged(random_folder, store / "scratch"), str(random_folder)
    loads, original = list[str](), auto.causal_lm

    def counting(source: str, *further: Any, **named: Any) -> Any:
        loads.append(source)
        return original(source, *further, **named)

    monkeypatch.setattr(auto, "causal_lm", counting)
    together = valuedrift_mlflow.evaluate_each(uris, baseline, **SETTINGS)
    assert len(loads) == 1
    alone = [valuedrift_mlflow.evaluate(uri, baseline, **SETTINGS) for uri in uris]
    assert [shown(one.metrics) for one in together] == [shown(one.metrics) for one in alone]
    texts = [one.tables["responses"]["response"].tolist() for one in together]
    assert texts == [one.tables["responses"]["response"].tolist() for one in alone]
    assert texts[0] != texts[1] != texts[2]
    runs = MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id])
    assert sum(run.data.tags["valuedrift.role"] == "evaluation" for run in runs) == 6


def test_all_that_is_wrong_is_said_before_anything_is_computed(store: Path, random_folder: Path) -> None:
    with pytest.raises(InputError) as error:
        valuedrift_mlflow.evaluate_each(["embedded:other", str(random_folder), "./nowhere"], **SETTINGS)
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["model", "model"]
    with pytest.raises(InputError, match="at least one model"):
        valuedrift_mlflow.evaluate_each([])
    assert not MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id])
