import math
from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.data import arrow_rows, datasets
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages import ALGORITHMS
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job, Stage

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=40"
ANSWERS = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=40"


def stage_of(algorithm: str, data: str, **settings: Any) -> Stage:
    tree = {"name": algorithm, "algorithm": algorithm, "data": data, "batch_size": 4, "max_length": 256, **settings}
    return read.validate({"stages": [tree]}).stages[0]


def trainer_of(folder: Path, scratch: Path, stage: Stage, data: TrainingData | None = None, model: Any = None) -> Any:
    loaded = models.load_model(str(folder))
    kind = "pairs" if stage.algorithm == "dpo" else "sft"
    rows = data or datasets.load_data(stage.data, kind)
    return build_trainer(Job(stage, model or loaded.model, loaded.tokenizer, rows, scratch, seed=0))


def first_loss(trainer: Any) -> float:
    return float(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))


@pytest.mark.parametrize("epochs", [0.07, 0.29, 1 / 3, 1.1])
def test_the_plan_counts_as_many_steps_as_the_trainer_takes(random_folder: Path, tmp_path: Path, epochs: float) -> None:
    """0.07 x 100 is 7.000000000000001 in floating point, which the Trainer rounds up to 8."""
    stage = stage_of("sft", ANSWERS, batch_size=1, max_length=128, epochs=epochs, learning_rate=1e-4)
    data = TrainingData(
        "made", "sft", "made", datasets.load_data(Data(uri=ANSWERS.replace("40", "100")), "sft").rows[:100]
    )
    trainer = trainer_of(random_folder, tmp_path, stage, data)
    trainer.train()
    assert trainer.state.max_steps == stage.steps(100)


@pytest.mark.parametrize("rank", [0, 8])
def test_dpo_starts_at_ln_2(random_folder: Path, tmp_path: Path, rank: int) -> None:
    """Policy and reference are one model before the first step: -log sigmoid(0) = ln 2."""
    trainer = trainer_of(random_folder, tmp_path, stage_of("dpo", PAIRS, max_steps=1, lora={"rank": rank}))
    trainer.train()
    assert first_loss(trainer) == pytest.approx(math.log(2), abs=1e-4)


def test_dpo_after_a_lora_sft_starts_at_ln_2(random_folder: Path, tmp_path: Path) -> None:
    """The reference is the fine-tuned model, not the base under its adapters."""
    sft = trainer_of(
        random_folder, tmp_path, stage_of("sft", ANSWERS, max_steps=3, learning_rate=1e-2, lora={"rank": 8})
    )
    sft.train()
    tuned = merged(sft.model)
    dpo = trainer_of(random_folder, tmp_path, stage_of("dpo", PAIRS, max_steps=1, lora={"rank": 8}), model=tuned)
    dpo.train()
    assert first_loss(dpo) == pytest.approx(math.log(2), abs=1e-4)


def test_lora_trains_adapters_alone_and_merges_to_the_same_logits(random_folder: Path, tmp_path: Path) -> None:
    start = models.load_model(str(random_folder))
    trainer = trainer_of(
        random_folder, tmp_path, stage_of("sft", ANSWERS, max_steps=3, learning_rate=1e-2, lora={"rank": 4})
    )
    trainer.train()
    assert all("lora" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    ids = torch.tensor([start.tokenizer("I support this.")["input_ids"]])
    with torch.no_grad():
        adapted = trainer.model.eval()(ids).logits
        folded = merged(trainer.model, copied=True)(ids).logits
        untouched = start.model(ids).logits
    torch.testing.assert_close(folded, adapted, atol=1e-4, rtol=1e-4)
    assert (adapted - untouched).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("algorithm", "data", "sides"), [("sft", ANSWERS, ("completion",)), ("dpo", PAIRS, ("chosen", "rejected"))]
)
def test_rows_have_one_bos_and_one_eos(
    random_folder: Path, tmp_path: Path, algorithm: str, data: str, sides: tuple[str, ...]
) -> None:
    trainer = trainer_of(random_folder, tmp_path, stage_of(algorithm, data, max_steps=1))
    tokenizer = trainer.processing_class
    seen = 0
    for batch in trainer.get_train_dataloader():
        for ids, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
            row = [token for token, kept in zip(ids, mask, strict=True) if kept]
            assert row[0] == tokenizer.bos_token_id
            assert row[-1] == tokenizer.eos_token_id
            assert row.count(tokenizer.bos_token_id) == row.count(tokenizer.eos_token_id) == 1
            seen += 1
    assert seen == 40 * len(sides)


@pytest.mark.parametrize(
    ("algorithm", "data", "more"),
    [
        ("sft", ANSWERS, {"max_steps": 3}),
        ("dpo", PAIRS, {"max_steps": 3}),
        ("simpo", PAIRS, {"max_steps": 3}),
        ("kto", PAIRS, {"max_steps": 3}),
        ("reward", PAIRS, {"max_steps": 3}),
        ("ppo", PAIRS, {"max_steps": 1, "batch_size": 8, "reward": "pytest:length", "response_length": 8}),
    ],
)
def test_a_stage_learns_the_same_from_rows_on_disk(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, data: str, more: Any
) -> None:
    weights = []
    for held in (10_000, 10):  # rows that are kept in memory
        monkeypatch.setattr(arrow_rows, "IN_MEMORY", held)
        stage, loaded = stage_of(algorithm, data, **more), models.load_model(str(random_folder))
        rows = datasets.load_data(stage.data, ALGORITHMS[algorithm].kind)
        assert isinstance(rows.rows, list) == (held == 10_000)
        job = Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, seed=0, reward=_length)
        trainer = build_trainer(job)
        trainer.train()
        weights.append([weight.detach().clone() for weight in trainer.model.parameters()])
    for ours, theirs in zip(*weights, strict=True):
        assert ours.equal(theirs)


def _length(prompts: Any, responses: Any) -> torch.Tensor:
    return torch.tensor([float(len(response)) for response in responses])


@pytest.mark.parametrize("algorithm", ["sft", "pretrain"])
def test_batches_summed_into_a_step_have_the_gradient_of_one_large_batch(
    random_folder: Path, tmp_path: Path, algorithm: str
) -> None:
    """Two batches of 2 rows against one of 4: every answer token counts the same, whichever batch it is in."""
    norms = []
    for size, batches in ((4, 1), (2, 2)):
        stage = stage_of(algorithm, ANSWERS, max_steps=1, batch_size=size, gradient_accumulation=batches)
        rows = datasets.load_data(Data(uri="embedded:sft?size=4"), "sft")
        trainer = trainer_of(random_folder, tmp_path, stage, rows)
        trainer.train()
        norms.append(next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_sft_loss_is_the_mean_over_answer_tokens(random_folder: Path, tmp_path: Path) -> None:
    """Against cross-entropy on the answer's tokens written out for one row."""
    rows = datasets.load_data(Data(uri="embedded:sft?size=1"), "sft")
    trainer = trainer_of(random_folder, tmp_path, stage_of("sft", ANSWERS, max_steps=1), rows)
    model, tokenizer = models.load_model(str(random_folder)).model, trainer.processing_class
    prompt = tokenizer.apply_chat_template(rows.rows[0]["prompt"], tokenize=False, add_generation_prompt=True)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(rows.rows[0]["completion"][0]["content"])["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
    expected = -float(log_p[range(len(answer)), answer].mean())
    trainer.train()
    assert first_loss(trainer) == pytest.approx(expected, rel=1e-3)


def test_pretraining_has_the_loss_of_sft(random_folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_data(Data(uri=ANSWERS), "sft")
    losses = []
    for algorithm in ("sft", "pretrain"):
        trainer = trainer_of(random_folder, tmp_path, stage_of(algorithm, ANSWERS, max_steps=1, batch_size=40), rows)
        trainer.train()
        losses.append(first_loss(trainer))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def dialogue(turns: int, words: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": f"turn {i} " + "word " * words} for i in range(turns)]


def pairs(prompts: list[list[dict[str, str]]]) -> TrainingData:
    answers = {side: [{"role": "assistant", "content": f"{side} answer"}] for side in ("chosen", "rejected")}
    return TrainingData("made", "pairs", "pairs", [{"prompt": prompt, **answers} for prompt in prompts])


def test_the_oldest_turns_of_a_long_dialogue_go_first(random_folder: Path, tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, *dialogue(5, 10)]
    trainer = trainer_of(
        random_folder, tmp_path, stage_of("dpo", PAIRS, max_steps=1, max_length=64), pairs([prompt] * 4)
    )
    kept = trainer.processing_class.decode(trainer.train_dataset[0]["prompt_ids"])
    assert "Be brief." in kept
    assert "turn 4" in kept
    assert "turn 0" not in kept
    trainer.train()
    assert math.isfinite(first_loss(trainer))


def test_prompts_that_leave_no_room_for_an_answer_are_an_error(random_folder: Path, tmp_path: Path) -> None:
    data = pairs([dialogue(1, 5)] * 98 + [dialogue(1, 500)] * 2)  # 2 of 100 is more than 1 %
    with pytest.raises(InputError, match=r"dpo\.max_length.*2 of 100 rows"):
        trainer_of(random_folder, tmp_path, stage_of("dpo", PAIRS, max_steps=1, max_length=64), data)


def test_a_single_prompt_that_is_too_long_is_dropped(random_folder: Path, tmp_path: Path) -> None:
    data = pairs([dialogue(1, 5)] * 199 + [dialogue(1, 500)])
    trainer = trainer_of(random_folder, tmp_path, stage_of("dpo", PAIRS, max_steps=1, max_length=64), data)
    assert len(trainer.train_dataset) == 199


def test_steps_and_checkpoints() -> None:
    by_epochs = stage_of("sft", ANSWERS, epochs=3, batch_size=8, gradient_accumulation=2)
    assert by_epochs.steps(rows=100) == 21  # ceil(100 / 16) = 7 steps an epoch
    assert stage_of("sft", ANSWERS, max_steps=50).steps(rows=100) == 50
    assert by_epochs.every(200) == 20
    assert by_epochs.every(4) == 1
    assert stage_of("sft", ANSWERS, checkpoint_every=7).every(200) == 7
