from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.embedded import world
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job


def test_the_base_model_is_small_and_its_turns_end_at_eos(random_folder: Path) -> None:
    loaded = models.load_model(str(random_folder))
    assert sum(p.numel() for p in loaded.model.parameters()) <= 3_000_000
    turns = [{"role": "user", "content": "Should we?"}, {"role": "assistant", "content": "Yes."}]
    text = loaded.tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == f"{world.BOS}<|user|>Should we?<|assistant|>Yes.{world.EOS}"
    asked = loaded.tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert text == f"{asked}Yes.{world.EOS}"


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_any_text_can_be_encoded(text: str) -> None:
    tokenizer = _tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def _tokenizer(made: list[object] = []) -> object:  # noqa: B006 - made once
    if not made:
        made.append(world.train_tokenizer(["Should we ban it? I support a ban.", "I oppose it."]))
    return made[0]


def test_the_same_seed_gives_the_same_base_model(random_folder: Path, tmp_path: Path) -> None:
    stage = read.load_recipe("pretrain", "pretrain.max_steps=3 pretrain.data=embedded:sft?size=96").stages[0]
    weights = []
    for name in ("one", "two"):
        tokenizer = AutoTokenizer.from_pretrained(random_folder)
        model = world.random_model(tokenizer)
        rows = datasets.load_data(stage.data, "sft")
        build_trainer(Job(stage, model, tokenizer, rows, tmp_path / name, world.SEED)).train()
        weights.append(list(model.parameters()))
    assert all(a.equal(b) for a, b in zip(*weights, strict=True))


def test_a_model_is_built_once_and_never_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "cache_folder", lambda: tmp_path / "cache")
    built: list[Path] = []

    def cut_off(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "whole").touch()

    with pytest.raises(KeyboardInterrupt):
        world.cached("base", {"steps": 1}, cut_off)
    assert list((tmp_path / "cache").iterdir()) == []
    first = world.cached("base", {"steps": 1}, build)
    assert (first / "whole").is_file()
    assert world.cached("base", {"steps": 1}, build) == first
    assert len(built) == 1
    assert world.cached("base", {"steps": 2}, build) != first  # other settings, another model
