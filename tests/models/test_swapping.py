"""Models that are read into the memory of the one before are those that loading them anew gives, to the last bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Swapping
from valuedrift_mlflow.models.generation import TransformersGenerator
from valuedrift_mlflow.models.weights import model_digest


def moved(source: Path, folder: Path, seed: int) -> str:
    """A checkpoint: the model of another folder with other weights."""
    loaded = models.load_model(str(source))
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def adapted(base: Path, folder: Path, seed: int, **settings: Any) -> str:
    """Adapters on a base, as peft saves them; without a tokenizer."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    told = {"r": 2, "target_modules": "all-linear", "init_lora_weights": False} | settings
    policy = get_peft_model(models.load_model(str(base)).model, LoraConfig(**told))
    policy.save_pretrained(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("checkpoints")
    first = moved(random_folder, place / "first", 1)
    return {
        "first": first,
        "second": moved(random_folder, place / "second", 2),
        "adapters": adapted(Path(first), place / "adapters", 3),
        "others": adapted(Path(first), place / "others", 4, r=3, use_dora=True),
        "replacing": adapted(
            Path(first), place / "replacing", 5, target_modules=["q_proj"], modules_to_save=["lm_head"]
        ),
    }


def loaded(memory: Swapping, uri: str) -> TransformersGenerator:
    generator = memory.load(uri)
    assert isinstance(generator, TransformersGenerator)
    return generator


def digest(generator: TransformersGenerator) -> bytes:
    found = model_digest(generator.model, generator.tokenizer)
    assert found is not None
    return found


ORDERS = ["first second first", "adapters others adapters second adapters", "first replacing adapters second"]


@pytest.mark.parametrize("order", ORDERS)
def test_each_is_what_it_is_alone(checkpoints: dict[str, str], order: str) -> None:
    memory, found = Swapping(), []
    for name in order.split():
        found.append(digest(loaded(memory, checkpoints[name])))
        assert found[-1] == digest(loaded(Swapping(), checkpoints[name])), name
        alone = models.load_model(checkpoints[name])
        assert found[-1] == model_digest(alone.model, alone.tokenizer), name
    assert len(set(found)) == len(set(order.split()))


def test_the_base_is_loaded_once(checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the one place where transformers loads a model."""
    from valuedrift_mlflow.models import auto

    times, original = [], auto.causal_lm

    def counting(*arguments: Any, **named: Any) -> Any:
        times.append(arguments)
        return original(*arguments, **named)

    monkeypatch.setattr(auto, "causal_lm", counting)
    memory = Swapping()
    kept = {id(loaded(memory, checkpoints[name]).model) for name in ("first", "adapters", "second", "others", "first")}
    assert len(times) == len(kept) == 1


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters" if "rope_parameters" in config else "rope_theta"] = (
        config["rope_parameters"] | {"rope_theta": 777.0} if "rope_parameters" in config else 777.0
    )
    (folder / "config.json").write_text(json.dumps(config))


def half(folder: Path) -> None:
    model = models.load_model(str(folder)).model.to(torch.float16)  # type: ignore[arg-type]
    model.save_pretrained(folder)


@pytest.mark.parametrize("change", [wider, half])
def test_another_architecture_or_precision_is_loaded_anew(
    checkpoints: dict[str, str], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoints["second"], other)
    change(other)
    memory = Swapping()
    for uri in (checkpoints["first"], str(other), checkpoints["first"]):
        assert digest(loaded(memory, uri)) == digest(loaded(Swapping(), uri))


def test_what_is_wrong_with_a_checkpoint_is_said_and_the_next_one_is_whole(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    memory = Swapping()
    loaded(memory, checkpoints["first"])
    cut = tmp_path / "cut"
    shutil.copytree(checkpoints["second"], cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="model: found"):
        memory.load(str(cut))
    assert digest(loaded(memory, checkpoints["second"])) == digest(loaded(Swapping(), checkpoints["second"]))


def test_a_checkpoint_that_is_not_finite_is_refused_as_ever(checkpoints: dict[str, str], tmp_path: Path) -> None:
    memory = Swapping()
    loaded(memory, checkpoints["first"])
    model = models.load_model(checkpoints["second"])
    with torch.no_grad():
        model.model.get_input_embeddings().weight[3] = float("nan")
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not finite"):
        memory.load(str(tmp_path))
