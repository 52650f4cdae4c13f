"""Model folders that are broken by half: what a library would make up or leave out is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForSequenceClassification

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.auto import classifier

Weights = dict[str, torch.Tensor]
LAYERS = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def adapters(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters that change what the random model says."""
    start = models.load_model(str(random_folder))
    start.model.name_or_path = str(random_folder)
    adapted = get_peft_model(start.model, LoraConfig(r=2, target_modules=LAYERS, init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapters")
    adapted.save_pretrained(str(folder))
    return folder


def changed(folder: Path, place: Path, name: str, change: Callable[[Weights], Weights]) -> str:
    shutil.copytree(folder, place / "model")
    file = place / "model" / name
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return str(place / "model")


WHOLE: dict[str, Callable[[Weights], Weights]] = {
    "a compiled model": lambda weights: {f"_orig_mod.{name}": weight for name, weight in weights.items()},
    "a wrapped model": lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
    "a layer too few": lambda weights: {name: one for name, one in weights.items() if "layers.0." not in name},
}


@pytest.mark.parametrize("name", WHOLE)
def test_weights_that_are_not_there_are_not_made_up(random_folder: Path, tmp_path: Path, name: str) -> None:
    folder = changed(random_folder, tmp_path, "model.safetensors", WHOLE[name])
    with pytest.raises(InputError, match=r"its files lack \d+ of \d+ weights, such as"):
        models.load_model(folder)


def test_layers_that_the_configuration_leaves_out_are_not_passed_over(random_folder: Path, tmp_path: Path) -> None:
    folder = changed(random_folder, tmp_path, "model.safetensors", lambda weights: weights)
    file = Path(folder) / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"num_hidden_layers": told["num_hidden_layers"] - 1, "layer_types": None}))
    with pytest.raises(InputError, match=r"weights of layers that its config.json does not, such as model\.layers\.\d"):
        models.load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_measured(random_folder: Path, tmp_path: Path, value: float) -> None:
    def one(weights: Weights) -> Weights:
        weights["model.norm.weight"][3] = value
        return weights

    folder = changed(random_folder, tmp_path, "model.safetensors", one)
    with pytest.raises(InputError, match=r"1 of its \d+ weights are not finite, such as model\.norm\.weight"):
        models.load_model(folder)


def test_a_head_that_is_not_there_rates_nothing(random_folder: Path, tmp_path: Path) -> None:
    config = models.load_model(str(random_folder)).model.config
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    assert classifier(str(tmp_path / "judge"), "cpu").num_labels == 1
    folder = changed(
        tmp_path / "judge",
        tmp_path,
        "model.safetensors",
        lambda weights: {name: one for name, one in weights.items() if not name.startswith("score")},
    )
    with pytest.raises(ValueError, match=r"lack 1 of \d+ weights, such as score.weight"):
        classifier(folder, "cpu")


ADAPTERS: dict[str, Callable[[Weights], Weights]] = {
    "a compiled model": lambda weights: {
        name.replace("base_model.model.", "base_model.model._orig_mod."): one for name, one in weights.items()
    },
    "no prefix": lambda weights: {name.removeprefix("base_model.model."): one for name, one in weights.items()},
    "half of them": lambda weights: dict(list(weights.items())[:2]),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_are_not_read_are_not_measured_as_their_base(adapters: Path, tmp_path: Path, name: str) -> None:
    folder = changed(adapters, tmp_path, "adapter_model.safetensors", ADAPTERS[name])
    with pytest.raises(InputError, match="missing adapter keys"):
        models.load_model(folder)


def test_whole_adapters_load_as_before(adapters: Path, random_folder: Path) -> None:
    ids = torch.arange(4).reshape(1, 4)
    base = models.load_model(str(random_folder)).model
    with torch.no_grad():
        plain = base(ids).logits
        wanted = PeftModel.from_pretrained(base, str(adapters)).eval()(ids).logits
        merged = models.load_model(str(adapters)).model(ids).logits
    assert torch.allclose(merged, wanted, atol=1e-4)
    assert not torch.allclose(merged, plain, atol=1e-2)


@pytest.mark.parametrize("told", [{"base_model_name_or_path": None}, {"base_model_name_or_path": "SELF"}, "half", {}])
def test_adapters_without_a_base_are_refused_before_loading(adapters: Path, tmp_path: Path, told: object) -> None:
    folder = shutil.copytree(adapters, tmp_path / "model")
    file = folder / "adapter_config.json"
    kept = {key: value for key, value in json.loads(file.read_text()).items() if key != "base_model_name_or_path"}
    if isinstance(told, dict):
        named = {key: str(folder) if value == "SELF" else value for key, value in told.items()}
        file.write_text(json.dumps(kept | named))
    else:
        file.write_text(json.dumps(kept)[:40])
    with pytest.raises(InputError, match=r"base_model_name_or_path: found .*allowed: the model below the adapters"):
        models.check_model(str(folder))


def test_adapters_of_another_rank_and_of_no_known_kind_end_in_one_line(adapters: Path, tmp_path: Path) -> None:
    for number, other in enumerate(({"r": 4}, {"peft_type": "WONDER"})):
        folder = shutil.copytree(adapters, tmp_path / str(number))
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | other))
        with pytest.raises(InputError, match=r"allowed: a folder or hub id") as caught:
            models.load_model(str(folder))
        assert "\n" not in str(caught.value)


def test_learned_prompts_cannot_be_merged(random_folder: Path, tmp_path: Path) -> None:
    start = models.load_model(str(random_folder))
    start.model.name_or_path = str(random_folder)
    get_peft_model(start.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        str(tmp_path)
    )
    with pytest.raises(InputError, match=r"peft_type: found 'PROMPT_TUNING', allowed: adapters that can be merged"):
        models.check_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"abc", b"version https://git-lfs.github.com/spec/v1\nsize 1\n", None])
def test_files_that_were_cut_end_in_one_line(random_folder: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(InputError, match=r"allowed: a folder or hub id") as caught:
        models.load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_adapters_that_lie_on_each_other_are_refused(random_folder: Path, tmp_path: Path) -> None:
    for name, below in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        told = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / below)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"base_model_name_or_path: found .*allowed: the model below the adapters"):
        models.check_model(str(tmp_path / "a"))


def test_adapters_that_have_peft_import_a_module_are_refused(random_folder: Path, tmp_path: Path) -> None:
    told = {"peft_type": "LORA", "base_model_name_or_path": str(random_folder)}
    told |= {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="megatron_core 'antigravity' would be imported"):
        models.check_model(str(tmp_path))


def test_a_kernel_of_the_hub_is_refused(random_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "model")
    told = json.loads((folder / "config.json").read_text()) | {"attn_implementation": "somebody/kernel"}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="asks for the kernel somebody/kernel, which is code"):
        models.load_model(str(folder))


def test_a_pickle_in_place_of_weights_is_one_line(random_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(InputError, match="a folder or hub id of a causal language model") as caught:
        models.load_model(str(folder))
    assert "\n" not in str(caught.value)
