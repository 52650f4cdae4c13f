"""Engines that exist, beside this package's own way: the same answers where nothing is drawn, and errors that mend."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import make
from peft import LoraConfig, get_peft_model
from vllm_server import VllmServer, served

from valuedrift_mlflow import models
from valuedrift_mlflow.evaluation.callback import ValueDriftCallback
from valuedrift_mlflow.evaluation.settings import Measuring, engine_of
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.engine import Engine
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator
from valuedrift_mlflow.models.loading import Loaded
from valuedrift_mlflow.models.speech import Speech

PROMPTS = ["Should we?", "Is it right to ban handguns in every city of the country?", "No."]
GREEDY = Sampling(2, 0.0, 8)


def said(generator: TransformersGenerator, sampling: Sampling) -> list[list[str]]:
    return generator.generate(PROMPTS, PROMPTS, sampling, lambda _: None)


@pytest.fixture
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


@pytest.fixture(scope="module")
def server(random_folder: Path) -> Iterator[VllmServer]:
    with served(random_folder) as one:
        yield one


def test_continuous_batching_says_what_this_package_says(loaded: Loaded) -> None:
    continuous = replace(GREEDY, engine=Engine("continuous"))
    before = torch.get_rng_state()
    attention = loaded.model.config._attn_implementation
    assert said(loaded.generator(), continuous) == said(loaded.generator(), GREEDY)
    # A text that ends an answer is looked for afterwards: the engine itself knows tokens alone.
    stop = said(loaded.generator(), GREEDY)[0][0][2:5]
    stopped = replace(GREEDY, speech=Speech(stop=(stop,)))
    assert said(loaded.generator(), replace(stopped, engine=Engine("continuous"))) == said(loaded.generator(), stopped)
    drawn = [said(loaded.generator(), replace(continuous, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # A training goes on with its own random numbers, and its own attention.
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.model.config._attn_implementation == attention


def test_continuous_batching_refuses_what_has_no_keys_and_values(random_folder: Path, tmp_path: Path) -> None:
    recurrent = models.load_model(str(make("mamba", random_folder, tmp_path)))
    with pytest.raises(InputError, match=r"generation\.backend.*MambaForCausalLM.*take generation\.backend=transform"):
        said(recurrent.generator(), replace(GREEDY, engine=Engine("continuous")))


def test_a_served_checkpoint_is_asked_by_its_name(server: VllmServer, loaded: Loaded) -> None:
    vllm = replace(GREEDY, engine=Engine("vllm", server.address))
    assert said(loaded.generator(), vllm) == said(loaded.generator(), GREEDY)
    assert set(server.asked[-6:]) == {str(loaded.folder)}
    # Each response has a seed of its own: a part of the prompts draws the same.
    drawing = replace(vllm, temperature=1.0)
    whole = said(loaded.generator(), drawing)
    assert loaded.generator().generate(PROMPTS[1:], PROMPTS[1:], drawing, lambda _: None) == whole[1:]
    assert whole[0][0] != whole[0][1]


def test_adapters_are_loaded_by_name_and_forgotten(
    server: VllmServer, loaded: Loaded, random_folder: Path, tmp_path: Path
) -> None:
    loaded.model.name_or_path = str(random_folder)
    live = get_peft_model(loaded.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    vllm = replace(GREEDY, engine=Engine("vllm", server.address))
    own = said(TransformersGenerator(live, loaded.tokenizer), GREEDY)
    assert own != said(models.load_model(str(random_folder)).generator(), GREEDY)
    assert said(TransformersGenerator(live, loaded.tokenizer), vllm) == own  # in the middle of a training
    live.save_pretrained(str(tmp_path))
    checkpoint = models.load_model(str(tmp_path)).generator()
    assert said(checkpoint, vllm) == own
    assert server.asked[-1].startswith("valuedrift-")
    assert list(server.models) == [str(random_folder)]


def test_adapters_on_another_model_than_the_served_one_are_refused(server: VllmServer, loaded: Loaded) -> None:
    loaded.model.name_or_path = "somebody/else"
    live = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(InputError, match=r"generation\.server.*a server of somebody/else"):
        said(TransformersGenerator(live, loaded.tokenizer), replace(GREEDY, engine=Engine("vllm", server.address)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have the weight sync")
def test_whole_weights_need_a_gpu(server: VllmServer, loaded: Loaded) -> None:
    trained = TransformersGenerator(loaded.model, loaded.tokenizer)  # of no folder: it may have been trained since
    with pytest.raises(InputError, match=r"all weights of a LlamaForCausalLM.*a GPU here and the extra vllm"):
        said(trained, replace(GREEDY, engine=Engine("vllm", server.address)))


def test_no_server(loaded: Loaded) -> None:
    nowhere = replace(GREEDY, engine=Engine("vllm", "http://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"generation\.server.*no connection.*start `vllm serve MODEL`"):
        said(loaded.generator(), nowhere)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backend": "tgi"}, r"generation\.backend.*tgi.*transformers.*continuous.*vllm"),
        ({"backend": "vllm"}, r"generation\.server.*an address such as"),
        ({"backend": "vllm", "server": "localhost:8000"}, r"generation\.server.*localhost:8000.*an address"),
        ({"server": "http://127.0.0.1:8000"}, r"generation\.server.*nothing with another backend"),
        ({"engine": "vllm"}, r"generation\.engine"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ValueDriftCallback("vaes?topics=religion&per_topic=2", "lexical", generation=given)


def test_settings_travel() -> None:
    given = {"backend": "vllm", "server": "http://127.0.0.1:8000"}
    engine = Engine("vllm", "http://127.0.0.1:8000")
    assert Measuring.model_validate({"generation": given}).sampling("").engine == engine == engine_of(given)
    assert ValueDriftCallback("vaes", "lexical", generation=given).sampling.engine == engine
