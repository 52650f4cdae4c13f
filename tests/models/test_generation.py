from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoTokenizer, GenerationConfig

from valuedrift_mlflow import models
from valuedrift_mlflow.models.drawing import drawn
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling, TransformersGenerator, encode

PROMPTS = ["Should we?", "Is it right to ban handguns in every city of the country?", "No."]
KEYS = ["a", "b", "c"]


def ignore(_: int) -> None:
    """Show no progress."""


@pytest.fixture
def generator(random_folder: Path) -> TransformersGenerator:
    return models.load_model(str(random_folder)).generator()


def test_batch_size_and_subset_do_not_change_a_response(generator: TransformersGenerator) -> None:
    one_batch = generator.generate(PROMPTS, KEYS, Sampling(3, 0.7, 12, batch_size=99), ignore)
    assert generator.generate(PROMPTS, KEYS, Sampling(3, 0.7, 12, batch_size=2), ignore) == one_batch
    assert generator.generate(PROMPTS[1:2], KEYS[1:2], Sampling(3, 0.7, 12, batch_size=1), ignore) == one_batch[1:2]
    # Fewer samples are the first ones of more.
    assert generator.generate(PROMPTS, KEYS, Sampling(1, 0.7, 12), ignore) == [row[:1] for row in one_batch]


def test_seed_and_salt_change_the_responses(generator: TransformersGenerator) -> None:
    plain = generator.generate(PROMPTS, KEYS, Sampling(1, 1.0, 12), ignore)
    assert generator.generate(PROMPTS, KEYS, Sampling(1, 1.0, 12, seed=1), ignore) != plain
    assert generator.generate(PROMPTS, KEYS, Sampling(1, 1.0, 12, salt="again"), ignore) != plain


def test_temperature_zero_is_greedy_decoding(generator: TransformersGenerator) -> None:
    ids = torch.tensor([encode(generator.tokenizer, PROMPTS[:1])[0]])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=8, eos_token_id=generator.tokenizer.eos_token_id, pad_token_id=0
    )
    peer = generator.model.generate(ids, generation_config=config)[0, ids.shape[1] :]
    ours = generator.generate(PROMPTS, KEYS, Sampling(2, 0.0, 8), ignore)[0]
    assert ours == [generator.tokenizer.decode(peer, skip_special_tokens=True).strip()] * 2


def test_tokens_are_drawn_from_the_tempered_distribution(generator: TransformersGenerator) -> None:
    """The first token of 4000 samples follows softmax(logits / T): a chi-square test against the model's own logits."""
    temperature, draws = 0.25, 4000
    ids = torch.tensor([encode(generator.tokenizer, PROMPTS[:1])[0]])
    with torch.no_grad():
        expected = torch.softmax(generator.model(ids).logits[0, -1] / temperature, -1).double().numpy()
    numbers = np.random.default_rng(0).random(draws, dtype=np.float32)
    logits = torch.log(torch.tensor(expected, dtype=torch.float32)).expand(draws, -1) * temperature
    tokens = drawn(logits, torch.tensor(numbers), temperature).numpy()
    common = np.argsort(expected)[-20:]
    observed = np.array([(tokens == token).sum() for token in common])
    rest = draws - observed.sum()
    p = chisquare([*observed, rest], [*expected[common] * draws, (1 - expected[common].sum()) * draws]).pvalue
    assert p > 0.001


def test_training_goes_on_as_if_nothing_had_been_generated(generator: TransformersGenerator) -> None:
    model = generator.model.train()
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    generator.generate(PROMPTS, KEYS, Sampling(2, 0.7, 4), ignore)
    assert torch.rand(1) == before
    assert model.training


def test_exactly_one_bos_in_front_of_a_prompt(generator: TransformersGenerator) -> None:
    for row in encode(generator.tokenizer, PROMPTS):
        assert row.count(generator.tokenizer.bos_token_id) == 1
        assert row[0] == generator.tokenizer.bos_token_id


def test_a_base_model_without_template_is_asked_for_a_response(random_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(random_folder)
    tokenizer.chat_template = None
    assert tokenizer.decode(encode(tokenizer, ["Should we?"])[0]) == "Should we?\nResponse:"


def test_a_function_is_asked_once_for_each_sample() -> None:
    calls: list[list[str]] = []

    def answer(prompts: list[str]) -> list[str]:
        calls.append(prompts)
        return [f"{len(calls)}: {prompt}" for prompt in prompts]

    responses = FunctionGenerator(answer).generate(["x", "y"], ["a", "b"], Sampling(2, 0.7, 256), ignore)
    assert responses == [["1: x", "2: x"], ["1: y", "2: y"]]


def test_a_function_that_loses_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 responses to 2 prompts"):
        FunctionGenerator(lambda prompts: prompts[:1]).generate(["x", "y"], ["a", "b"], Sampling(1, 0.7, 256), ignore)
