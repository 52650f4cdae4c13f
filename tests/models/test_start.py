"""The distance of a policy from its start, by what the start held likely at the tokens of fixed responses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.models.generation import encode
from valuedrift_mlflow.models.start import Start, reference_kl, start_of

PROMPTS, SAID = ["Should we?", "Is it right to ban handguns?", "Why?"], ["Yes, we should.", "No.", ""]


def exchanges(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    said = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in SAID]
    return list(zip(encode(tokenizer, PROMPTS), said, strict=True))


@pytest.fixture(scope="module")
def moved(random_folder: Path) -> Any:
    loaded = models.load_model(str(random_folder))
    torch.manual_seed(0)
    with torch.no_grad():
        loaded.model.lm_head.weight.add_(torch.randn_like(loaded.model.lm_head.weight))  # type: ignore[operator]
    return loaded.model


@pytest.fixture(scope="module")
def loaded(random_folder: Path) -> models.Loaded:
    return models.load_model(str(random_folder))


def by_hand(policy: Any, start: Any, tokenizer: Any, likeliest: int) -> float:
    """One sequence at a time, without padding: the KL over the start's likeliest tokens and one cell for the rest."""
    total, tokens = 0.0, 0
    for prompt, answer in exchanges(tokenizer):
        if not answer:
            continue
        with torch.no_grad():
            p, q = (
                model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().softmax(-1)
                for model in (policy, start)
            )
        for here, there in zip(p, q, strict=True):
            order = there.argsort(descending=True)
            cells = [*order[:likeliest].split(1), order[likeliest:]]
            for cell in cells:
                if len(cell):
                    a, b = float(here[cell].sum()), float(there[cell].sum())
                    total += a * float(torch.tensor(a / b, dtype=torch.float64).log())
        tokens += len(answer)
    return total / tokens


@pytest.mark.parametrize("likeliest", [3, 50, 10**6], ids=["three", "fifty", "all"])
def test_the_distance_is_that_of_the_cells(loaded: models.Loaded, moved: Any, likeliest: int) -> None:
    asked = exchanges(loaded.tokenizer)
    tokens = sum(len(said) for _, said in asked)
    start = start_of(loaded.model, asked, kept=8 * tokens * likeliest)
    expected = by_hand(moved, loaded.model, loaded.tokenizer, likeliest)
    assert expected > 0.001
    assert reference_kl(moved, start) == pytest.approx(expected, rel=1e-4)


def test_fewer_cells_never_show_more(loaded: models.Loaded, moved: Any) -> None:
    """The data processing inequality."""
    asked = exchanges(loaded.tokenizer)
    found = [reference_kl(moved, start_of(loaded.model, asked, kept=kept)) for kept in (8, 800, 8000, 2**24)]
    assert found == sorted(found)


def test_an_unmoved_policy_has_no_distance(loaded: models.Loaded) -> None:
    start = start_of(loaded.model, exchanges(loaded.tokenizer))
    assert reference_kl(loaded.model, start) == pytest.approx(0, abs=1e-7)


def test_it_is_read_as_it_was_written(loaded: models.Loaded, moved: Any, tmp_path: Path) -> None:
    start = start_of(loaded.model, exchanges(loaded.tokenizer), kept=4000)
    start.write(tmp_path / "start.npz")
    again = Start.read(tmp_path / "start.npz")
    assert again.exchanges == start.exchanges
    assert reference_kl(moved, again) == reference_kl(moved, start)


def test_a_start_that_said_nothing_is_at_no_distance(loaded: models.Loaded, moved: Any, tmp_path: Path) -> None:
    start = start_of(loaded.model, [([1, 2], [])])
    start.write(tmp_path / "start.npz")
    assert reference_kl(moved, Start.read(tmp_path / "start.npz")) == 0.0
