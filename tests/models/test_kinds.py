"""Models that are no causal language models are refused in one line, before anything is loaded or run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.auto import causal_lm
from valuedrift_mlflow.recipe import read

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OWN_CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise SystemExit('this code was run')\n"


@pytest.fixture
def other(request: pytest.FixtureRequest, tmp_path: Path, random_folder: Path) -> Path:
    folder = tmp_path / "other"
    kind: str = request.param
    if kind == "encoder":
        BertForMaskedLM(BertConfig(vocab_size=100, **SMALL)).save_pretrained(folder)
    elif kind == "encoder-decoder":
        T5ForConditionalGeneration(T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1)).save_pretrained(
            folder
        )
    elif kind == "classifier":
        LlamaForSequenceClassification(models.load_model(str(random_folder)).model.config).save_pretrained(folder)
    else:
        shutil.copytree(random_folder, folder)
        told = json.loads((folder / "config.json").read_text())
        if kind == "vision":
            told |= {"vision_config": {"hidden_size": 8}, "architectures": ["LlavaForConditionalGeneration"]}
        else:
            told |= {
                "model_type": "mine",
                "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"},
            }
            (folder / "mine.py").write_text(OWN_CODE)
        (folder / "config.json").write_text(json.dumps(told))
    return folder


KINDS = {
    "encoder": "a BertForMaskedLM",
    "encoder-decoder": "an encoder-decoder model",
    "classifier": "a LlamaForSequenceClassification",
    "vision": "a model of several kinds of input",
    "own code": "a model with code of its own",
}


@pytest.mark.parametrize(("other", "found"), KINDS.items(), indirect=["other"])
def test_other_kinds_are_refused_by_their_files(other: Path, found: str) -> None:
    for refuse in (models.check_trainable, models.load_model):
        with pytest.raises(InputError, match=found) as caught:
            refuse(str(other), "base.model") if refuse is models.check_trainable else refuse(str(other))
        assert "\n" not in str(caught.value)
    assert not (other / "ran").exists()


@pytest.mark.parametrize("other", ["encoder", "classifier"], indirect=True)
def test_what_only_loading_can_tell_is_refused_there(other: Path) -> None:
    """As of a hub id, whose files are not at hand before."""
    with pytest.raises(ValueError, match=r"a BertForMaskedLM|a LlamaForSequenceClassification"):
        causal_lm(str(other))


def test_a_models_own_code_is_never_asked_for(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where its architecture is known: transformers would ask on the terminal, and `yes |` would run it."""
    folder = shutil.copytree(random_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(OWN_CODE)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    assert models.load_model(str(folder)).model.config.model_type == "llama"
    assert not (folder / "ran").exists()


def test_adapters_without_a_tokenizer_take_their_bases(random_folder: Path, tmp_path: Path) -> None:
    start = models.load_model(str(random_folder))
    start.model.name_or_path = str(random_folder)
    get_peft_model(start.model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(str(tmp_path))
    loaded = models.load_model(str(tmp_path))
    assert loaded.tokenizer.get_vocab() == start.tokenizer.get_vocab()
    assert loaded.generator().generate(["Why?"], ["a"], models.generation.Sampling(1, 0.0, 2), lambda _: None)


def test_a_recipe_with_another_kind_of_model_is_refused_whole(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(vocab_size=100, **SMALL)).save_pretrained(tmp_path)
    from valuedrift_mlflow.pipeline.plan import prepare

    stage = {
        "name": "ppo",
        "algorithm": "ppo",
        "data": "embedded:pairs?size=8",
        "reward": "valuedrift_mlflow.embedded.rewards:opposes",
    }
    tree = {"base": {"model": str(tmp_path)}, "suite": "vaes?topics=religion&per_topic=2", "stages": [stage]}
    with pytest.raises(InputError, match=r"base.model.*a BertForMaskedLM"):
        prepare(read.validate(tree), "tiny")
