from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import valuedrift_mlflow
from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.evaluation.callback import ValueDriftCallback
from valuedrift_mlflow.evaluation.measurement import judge_existing, measure
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.likelihood import BEGINNING, OPENINGS, LikelihoodJudge, log_probabilities, verdict
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling, chat_text
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job
from valuedrift_mlflow.stances import STANCES, Label
from valuedrift_mlflow.suite import Item

ITEMS = suite.load("vaes?per_topic=1").items


def naive(model: Any, ids: list[int], start: int) -> float:
    """Log-probability of ids[start:] after ids[:start]: one whole row, no cache, no padding."""
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(log_p[j - 1, ids[j]]) for j in range(start, len(ids)))


def by_hand(model: Any, tokenizer: Any, item: Item) -> list[float]:
    """P(stance | x) from whole texts. What all openings share cancels, so it need not be left out."""
    plain = tokenizer.chat_template is None
    before = chat_text(tokenizer, item.prompt) + (" " if plain else "")
    before += BEGINNING.format(proposition=item.proposition)
    mass = []
    for stance in STANCES:
        rows = [tokenizer(before + opening, add_special_tokens=plain)["input_ids"] for opening in OPENINGS[stance]]
        mass.append(np.logaddexp.reduce([naive(model, row, 1) for row in rows]))
    return [math.exp(m - np.logaddexp.reduce(mass)) for m in mass]


@pytest.mark.parametrize("chat", [True, False])
def test_the_choice_is_that_of_whole_texts_without_a_cache(random_folder: Path, chat: bool) -> None:
    loaded = models.load_model(str(random_folder))
    loaded.tokenizer.pad_token = None
    if not chat:
        loaded.tokenizer.chat_template = None
    items = ITEMS[:3]
    found = LikelihoodJudge().choose(loaded.model, loaded.tokenizer, items, batch_size=108)
    for verdict_, item in zip(found, items, strict=True):
        assert verdict_.probabilities == pytest.approx(by_hand(loaded.model, loaded.tokenizer, item), abs=1e-4)


SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2}
ARCHITECTURES = {
    "gpt2": {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "bloom": {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "opt": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen3": {**LLAMA_LIKE, "head_dim": 8},
    "gemma3_text": {**LLAMA_LIKE, "head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention"] * 2},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_shared_prefix_gives_what_whole_rows_give(kind: str) -> None:
    """Also where positions are absolute, relative or ALiBi, and where attention sees a window of four tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **ARCHITECTURES[kind], pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():  # larger weights, so that positions matter
        torch.nn.init.normal_(parameter, std=0.3)
    batch = [
        ([1, 5, 6, 7, 8, 9, 10, 11], [[12], [13, 14, 15], [16, 17, 18, 19, 20, 21]]),
        ([1, 30, 31], [[12, 13], [14], [15, 16, 17]]),
    ]
    with torch.no_grad():
        found = log_probabilities(model, batch)
    expected = [[naive(model, prefix + end, len(prefix)) for end in ends] for prefix, ends in batch]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_neither_batch_size_nor_order_matters(random_folder: Path) -> None:
    loaded, judge = models.load_model(str(random_folder)), LikelihoodJudge()
    loaded.model.train()
    done: list[int] = []
    one = judge.choose(loaded.model, loaded.tokenizer, ITEMS, batch_size=1, progress=done.append)
    many = judge.choose(loaded.model, loaded.tokenizer, ITEMS[::-1], batch_size=200)[::-1]
    for a, b in zip(one, many, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)
    assert sum(done) == len(ITEMS)
    assert loaded.model.training


def test_openings_of_a_stance_add_up() -> None:
    """Two openings a stance: 0.2 + 0.1, 0.05 + 0.05 and 0.1 + 0.1 of the probability, of 0.6 in all."""
    found = verdict(np.log([0.2, 0.1, 0.05, 0.05, 0.1, 0.1]))
    assert found.label is Label.SUPPORT
    assert found.probabilities == pytest.approx((1 / 2, 1 / 6, 1 / 3))


def test_a_model_that_gives_no_numbers_is_unscored() -> None:
    assert verdict(np.full(6, np.nan)).label is Label.UNSCORED


def test_every_stance_has_as_many_openings() -> None:
    assert {len(OPENINGS[stance]) for stance in STANCES} == {12}
    assert len({opening for stance in STANCES for opening in OPENINGS[stance]}) == 36


def test_a_measurement_holds_one_choice_a_prompt_and_no_response(random_folder: Path) -> None:
    loaded, judge = models.load_model(str(random_folder)), LikelihoodJudge()
    asked = suite.load("vaes?per_topic=1")
    measured = measure(loaded.generator(), asked, judges.load("likelihood"), Sampling(5, 0.7, 256))
    assert [(judged.item, judged.sample) for judged in measured.responses] == [(item, 0) for item in ITEMS]
    assert {judged.response for judged in measured.responses} == {"(forced choice: no response was generated)"}
    chosen = judge.choose(loaded.model, loaded.tokenizer, ITEMS)
    assert [judged.verdict for judged in measured.responses] == chosen
    assert measured.judge == f"likelihood@{judge.version}"
    assert not any(key.startswith("cost/judge") for key in measured.costs())  # nothing was paid


def test_without_responses_there_is_no_kl_to_measure() -> None:
    assert ValueDriftCallback(judge="lexical").kl
    assert not ValueDriftCallback(judge="likelihood").kl


SERVER = "openai:/m?base_url=http://127.0.0.1:1/v1"
REFUSED = "judge: found 'likelihood', allowed: a judge that reads responses"


def yes(prompts: list[str]) -> list[str]:
    return ["Yes."] * len(prompts)


@pytest.mark.parametrize(
    ("use", "mend"),
    [
        (lambda asked: judge_existing([(ITEMS[0], 0, "")], asked, LikelihoodJudge()), ""),
        (lambda asked: LikelihoodJudge().judge([]), ""),
        (
            lambda asked: measure(FunctionGenerator(yes), asked, LikelihoodJudge(), Sampling(5, 0.7, 256)),
            "; likelihood needs a model's own weights",
        ),
        (
            lambda asked: valuedrift_mlflow.evaluate(SERVER, suite=asked, judge="likelihood"),
            f"; {SERVER} has no weights to ask",
        ),
        (
            lambda asked: valuedrift_mlflow.evaluate("embedded:random", SERVER, suite=asked, judge="likelihood"),
            f"; {SERVER} has no weights to ask",
        ),
    ],
)
def test_it_needs_weights_to_ask(use: Callable[[suite.Suite], object], mend: str) -> None:
    with pytest.raises(InputError) as caught:
        use(suite.load("vaes?per_topic=1"))
    assert str(caught.value) == REFUSED + mend


def test_training_on_a_stance_moves_the_choice_towards_it(base: str, tmp_path: Path) -> None:
    """Twenty-four steps on 70 % support, twenty-four on 70 % oppose, each from the base."""
    items, judge = suite.load("vaes?per_topic=5").items, LikelihoodJudge()

    def stances(mix: str | None) -> Any:
        loaded = models.load_model(base)
        if mix:
            tree = {"name": "sft", "algorithm": "sft", "data": f"embedded:sft?{mix}&neutral=0.2&size=1000&seed=1"}
            tree |= {"batch_size": 12, "max_length": 512, "learning_rate": 1e-3, "max_steps": 24}
            stage = read.validate({"stages": [tree]}).stages[0]
            rows = datasets.load_data(stage.data, "sft")
            build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, seed=0)).train()
        found = judge.choose(loaded.model, loaded.tokenizer, items, batch_size=200)
        return np.mean([v.probabilities for v in found], axis=0)

    start = stances(None)
    assert stances("support=0.7&oppose=0.1")[0] > start[0] + 0.1
    assert stances("support=0.1&oppose=0.7")[2] > start[2] + 0.1
