"""A checkpoint that would load as another model than the one in memory is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from peft import LoraConfig, get_peft_model

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Loaded, reloads
from valuedrift_mlflow.models.reloads import Reloads, base_of
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display


def saved(loaded: Loaded, folder: Path, rank: int) -> Any:
    """The model as it is trained, and its checkpoint in the folder."""
    model: Any = loaded.model
    if rank:
        model.name_or_path = loaded.uri
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(folder)
    return model.train()


def other_config(folder: Path, **values: Any) -> None:
    name = "adapter_config.json" if (folder / "adapter_config.json").is_file() else "config.json"
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_checkpoint_of_the_live_model_passes_and_the_model_stays_as_it_was(
    random_folder: Path, tmp_path: Path, rank: int, dtype: torch.dtype
) -> None:
    loaded = models.load_model(str(random_folder))
    loaded.model.to(dtype)
    model = saved(loaded, tmp_path, rank)
    check = Reloads("sft")
    check.check(model, loaded.tokenizer, tmp_path)
    check.check(model, loaded.tokenizer, tmp_path)
    assert model.training


def test_a_later_checkpoint_is_loaded_again_only_where_more_than_weights_differs(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, times, original = models.load_model(str(random_folder)), list[str](), reloads.auto.causal_lm

    def counting(source: str, *further: Any) -> Any:
        times.append(source)
        return original(source, *further)

    monkeypatch.setattr(reloads.auto, "causal_lm", counting)
    check = Reloads("sft")
    for step in range(3):
        with torch.no_grad():
            next(loaded.model.parameters()).add_(1e-3)
        check.check(saved(loaded, tmp_path / str(step), 0), loaded.tokenizer, tmp_path / str(step))
    assert len(times) == 1
    other_config(tmp_path / "2", rms_norm_eps=0.5)
    with pytest.raises(InputError, match="logits that differ"):
        check.check(loaded.model, loaded.tokenizer, tmp_path / "2")


@pytest.mark.parametrize("rank", [0, 4])
def test_weights_that_are_not_in_the_file_are_named(random_folder: Path, tmp_path: Path, rank: int) -> None:
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path, rank)
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.requires_grad).view(-1)[0] += 1e-3
    with pytest.raises(InputError, match=r"sft checkpoint .*(lora_A|embed_tokens).* is another in the file"):
        Reloads("sft").check(model, loaded.tokenizer, tmp_path)


def test_adapters_that_name_another_base_are_refused(random_folder: Path, tmp_path: Path) -> None:
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path / "step", 4)
    other = models.load_model(str(random_folder))
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    check = Reloads("sft")
    check.check(model, loaded.tokenizer, tmp_path / "step")
    other_config(tmp_path / "step", base_model_name_or_path=str(tmp_path / "other"))
    assert base_of(tmp_path / "step") == str(tmp_path / "other")
    for refusing in (check, Reloads("sft")):
        with pytest.raises(InputError, match=r"logits that differ by .*, on the base .*/other"):
            refusing.check(model, loaded.tokenizer, tmp_path / "step")


def test_a_configuration_that_makes_another_model_is_refused(random_folder: Path, tmp_path: Path) -> None:
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path, 0)
    other_config(tmp_path, rms_norm_eps=1.0)
    with pytest.raises(InputError, match="logits that differ by"):
        Reloads("sft").check(model, loaded.tokenizer, tmp_path)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_split_model_is_compared_by_its_logits(random_folder: Path, tmp_path: Path, rank: int) -> None:
    """In one process; the tests of launches do it in two."""
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path, rank)
    check = Reloads("sft")
    check.check_split(model, loaded.tokenizer, tmp_path, here=True)
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.requires_grad and weight.abs().sum() > 0).mul_(2)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
    check.check_split(model, loaded.tokenizer, tmp_path, here=False)
    with pytest.raises(InputError, match="logits that differ by"):
        check.check_split(model, loaded.tokenizer, tmp_path, here=True)


def test_a_training_draws_the_same_numbers_after_a_comparison(random_folder: Path, tmp_path: Path) -> None:
    """New adapters begin at random before they are read: dropout of the next step would be another one."""
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path, 4)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Reloads("sft").check(model, loaded.tokenizer, tmp_path)
    assert torch.rand(1) == expected


def test_a_large_model_is_compared_by_its_files_alone(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloads, "LOADED_UP_TO", 0)
    loaded = models.load_model(str(random_folder))
    model = saved(loaded, tmp_path, 0)
    other_config(tmp_path, architectures=["Unknown"])  # it could not be loaded
    Reloads("sft").check(model, loaded.tokenizer, tmp_path)
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    with pytest.raises(InputError, match=r"lm_head.weight is another in the file"):
        Reloads("sft").check(model, loaded.tokenizer, tmp_path)


def test_adapters_on_a_local_folder_load_without_it(store: Path, random_folder: Path) -> None:
    """As on another machine, which has the tracking store and not the folder."""
    start = store / "start"
    shutil.copytree(random_folder, start)
    stage = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=16", "batch_size": 4, "max_length": 256}
    stage |= {"max_steps": 2, "checkpoint_every": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0, "lora": {"rank": 4}}
    tree = {"base": {"model": str(start)}, "suite": "vaes?topics=religion&per_topic=2", "samples": 1}
    plan = prepare(read.validate(tree | {"max_new_tokens": 4, "stages": [stage]}), "tiny")
    result: Any = run_single_stage(plan, Display())
    shutil.rmtree(start)
    logged = {model.name: model.model_id for model in mlflow.search_logged_models(output_format="list")}
    assert set(logged) == {"sft-base-step-000000", "sft-step-000001", "sft-step-000002"}
    artifacts = f"runs:/{result.run_id}/checkpoints/step-000002"
    below = base_of(Path(mlflow.artifacts.download_artifacts(artifacts)))
    assert below == f"models:/{logged['sft-base-step-000000']}"
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        whole = models.load_model(f"models:/{logged['sft-step-000002']}").model(ids).logits
        stacked = models.load_model(artifacts).model(ids).logits
    torch.testing.assert_close(stacked, whole, atol=1e-4, rtol=1e-4)
    assert models.load_model(f"models:/{logged['sft-step-000001']}").model.config.model_type == "llama"
