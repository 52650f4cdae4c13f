"""The base model that comes with the package: made of the texts of today, whole, and as good as one trained anew."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import valuedrift_mlflow
from valuedrift_mlflow.embedded import shipped, world
from valuedrift_mlflow.models.loading import from_folder
from valuedrift_mlflow.stages import embedded_base


def test_it_is_made_of_the_texts_architecture_and_settings_of_today() -> None:
    made = world.made_of(embedded_base.base_settings())
    assert shipped.is_of(made), "make it anew: python -m valuedrift_mlflow.stages.embedded_base"
    assert not shipped.is_of(world.made_of(embedded_base.base_settings() | {"max_steps": 999}))
    trained, kept = embedded_base.base_tokenizer(), shipped.tokenizer()
    assert kept.backend_tokenizer.to_str() == trained.backend_tokenizer.to_str()
    assert kept.chat_template == trained.chat_template


def test_unpacked_it_has_the_weights_that_were_packed_in_single_precision(tmp_path: Path) -> None:
    shipped.unpack(tmp_path)
    packed, unpacked = load_file(shipped.FOLDER / shipped.WEIGHTS), load_file(tmp_path / shipped.WEIGHTS)
    assert packed.keys() == unpacked.keys()
    for name, weight in unpacked.items():
        assert weight.dtype == np.float32
        assert np.array_equal(weight, packed[name])
    loaded = from_folder("embedded:base", tmp_path)
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == sum(w.size for w in unpacked.values())
    assert "".join(loaded.tokenizer.batch_decode(loaded.tokenizer("A claim.")["input_ids"])) == "A claim."


@pytest.mark.parametrize("damage", ["half of it", "a pointer", "none", "no record"])
def test_damaged_weights_are_not_used(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(shipped.FOLDER, tmp_path / "base")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    made = json.loads((folder / shipped.MADE).read_text())["made"]
    assert shipped.is_of(made)
    weights = folder / shipped.WEIGHTS
    match damage:
        case "half of it":
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        case "a pointer":
            weights.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "none":
            weights.unlink()
        case _:
            (folder / shipped.MADE).unlink()
    assert not shipped.is_of(made)


def test_one_that_is_damaged_in_the_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if not world.cache_folder().is_relative_to(tmp_path):
        pytest.skip("the cache of this system lies elsewhere")
    weights = embedded_base.base_folder() / shipped.WEIGHTS
    good = weights.read_bytes()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    for damaged in (good[:1000], bytes(flipped)):
        weights.write_bytes(damaged)
        assert embedded_base.load_embedded("embedded:base").uri == "embedded:base"
        assert weights.read_bytes() == good
        assert "model.safetensors is not what was written): it is made again" in caplog.text
        caplog.clear()
    assert [path.name for path in weights.parents[1].iterdir()] == [weights.parent.name]


def test_where_nothing_can_be_kept_the_model_is_made_for_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))  # below a file nobody can make a folder
    if not world.cache_folder().is_relative_to(tmp_path):
        pytest.skip("the cache of this system lies elsewhere")
    folder = embedded_base.base_folder()
    assert (folder / shipped.WEIGHTS).is_file()
    assert embedded_base.base_folder() == folder
    assert "is not kept in" in caplog.text


@pytest.mark.slow  # trains the model anew, three minutes on two cores
def test_one_that_is_trained_anew_has_the_same_stances(tmp_path: Path, store: Path) -> None:
    embedded_base.train_base(tmp_path / "anew")
    compared = valuedrift_mlflow.evaluate(str(tmp_path / "anew"), "embedded:base", samples=4, judge="lexical")
    floor = compared.metrics["drift/noise_floor"]
    assert compared.metrics["drift/overall"] < 2 * floor
