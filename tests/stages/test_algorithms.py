import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from torch.nn.functional import logsigmoid

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import Kind, TrainingData
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.embedded.rewards import opposes
from valuedrift_mlflow.evaluation.callback import TrainingLog
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.pipeline.pipeline import run_pipeline, run_single_stage
from valuedrift_mlflow.pipeline.plan import RewardResult, prepare
from valuedrift_mlflow.recipe import read, recipe
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages import ALGORITHMS, rewards
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.suite.questions import propositions

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=40"
FEW = PAIRS.replace("size=40", "size=4")
FROM_PAIRS = ("dpo", "simpo", "orpo", "kto", "reward")
SAMPLING = ("grpo", "rloo")
OPPOSES = "valuedrift_mlflow.embedded.rewards:opposes"


def lengths_of(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    """A reward that needs no model: longer responses are better."""
    return torch.tensor([float(len(response)) for response in responses])


def tree_of(algorithm: str, **settings: Any) -> dict[str, Any]:
    tree = {"name": algorithm, "algorithm": algorithm, "data": PAIRS, "batch_size": 4, "max_length": 256}
    if algorithm in SAMPLING:
        tree |= {"reward": OPPOSES, "generations": 2, "response_length": 8}
    return tree | settings


def stage_of(algorithm: str, **settings: Any) -> Stage:
    return read.validate({"stages": [tree_of(algorithm, **settings)]}).stages[0]


def trainer_of(
    loaded: Loaded,
    scratch: Path,
    stage: Stage,
    data: TrainingData | None = None,
    reward: Callable[..., torch.Tensor] = lengths_of,
    callbacks: Sequence[Any] = (),
) -> Any:
    rows = data or datasets.load_data(stage.data, stage.kind)
    rated = reward if stage.algorithm in SAMPLING else None
    return build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, scratch, 0, callbacks, rated))


def first(trainer: Any, key: str = "loss") -> float:
    return float(next(entry[key] for entry in trainer.state.log_history if key in entry))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def made(kind: Kind, questions: Sequence[str], answer: str = "Yes, I do.") -> TrainingData:
    """Rows of any kind with these questions and one answer to all of them."""
    rows: list[dict[str, Any]] = []
    for number, question in enumerate(questions):
        row: dict[str, Any] = {"prompt": user(question)}
        if kind == "pairs":
            row |= {"chosen": assistant(answer), "rejected": assistant("No.")}
        elif kind == "labelled":
            row |= {"completion": assistant(answer), "label": number % 2 == 0}
        rows.append(row)
    return TrainingData("made", kind, "made", rows)


# The loss before the first step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "smoothing", "expected"),
    [
        # All log-ratios are 0, so each loss is a number that can be worked out; beta is 0.5.
        ("sigmoid", 0.0, math.log(2)),
        ("hinge", 0.0, 1.0),
        ("ipo", 0.0, 1.0),  # (0 - 1 / (2 beta))^2 = 1 / (4 beta^2)
        ("exo_pair", 0.1, 0.5 * (math.log(0.5 / 0.9) + math.log(0.5 / 0.1))),
        ("nca_pair", 0.0, 2 * math.log(2)),
        ("robust", 0.1, math.log(2)),
        ("bco_pair", 0.0, 2 * math.log(2)),
        ("sppo_hard", 0.0, 2.0),  # two errors of (1 / (2 beta))^2
        ("aot", 0.0, math.log(2)),
        ("apo_zero", 0.0, 1.0),
        ("apo_down", 0.0, 1.0),
    ],
)
def test_dpo_variants_start_at_their_closed_forms(
    random_folder: Path, tmp_path: Path, variant: str, smoothing: float, expected: float
) -> None:
    stage = stage_of("dpo", data=FEW, max_steps=1, beta=0.5, loss_type=variant, label_smoothing=smoothing)
    trainer = trainer_of(models.load_model(str(random_folder)), tmp_path, stage)
    trainer.train()
    assert first(trainer) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("desirable", "expected", "rank"),
    [(1.0, 0.5, 0), (2.0, 0.75, 0), (2.0, 0.75, 4)],  # half of the mean weight
)
def test_kto_starts_at_half_of_the_mean_weight(
    random_folder: Path, tmp_path: Path, desirable: float, expected: float, rank: int
) -> None:
    stage = stage_of("kto", data=FEW, max_steps=1, batch_size=8, desirable_weight=desirable, lora={"rank": rank})
    trainer = trainer_of(models.load_model(str(random_folder)), tmp_path, stage)
    trainer.train()
    assert first(trainer) == pytest.approx(expected, abs=1e-4)
    assert first(trainer, "kl") == pytest.approx(0, abs=1e-4)


def answer_log_p(loaded: Loaded, prompt: list[dict[str, str]], answer: list[dict[str, str]]) -> torch.Tensor:
    """Log-probabilities of an answer's tokens and its EOS, written out without padding or batches."""
    tokenizer = loaded.tokenizer
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    asked = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    answered = [*tokenizer(answer[0]["content"])["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = loaded.model(torch.tensor([asked + answered])).logits[0, :-1].log_softmax(-1)
    return log_p[range(len(asked) - 1, len(log_p)), answered]


def whole_nll(loaded: Loaded, rows: list[dict[str, Any]]) -> float:
    """Mean over all tokens but the first of prompts and chosen answers."""
    losses: list[torch.Tensor] = []
    for row in rows:
        ids = loaded.tokenizer.apply_chat_template(row["prompt"] + row["chosen"], return_dict=False)
        with torch.no_grad():
            log_p = loaded.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        losses.append(-log_p[range(len(ids) - 1), list(ids[1:])])
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("algorithm", ["simpo", "orpo"])
def test_losses_without_a_reference_are_those_of_the_papers(
    random_folder: Path, tmp_path: Path, algorithm: str, rank: int
) -> None:
    rows = datasets.load_data(Data(uri="embedded:pairs?size=3"), "pairs")
    start = models.load_model(str(random_folder))
    means = [
        [answer_log_p(start, row["prompt"], row[side]).mean() for side in ("chosen", "rejected")] for row in rows.rows
    ]
    chosen, rejected = torch.tensor(means).T
    if algorithm == "simpo":  # beta 2.5 and a margin of 0.4 * 2.5 = 1
        settings = {"beta": 2.5, "gamma_beta_ratio": 0.4}
        expected = float(-logsigmoid(2.5 * (chosen - rejected) - 1).mean())
    else:
        settings = {"beta": 0.3}
        odds = [p / (1 - p) for p in (chosen.exp(), rejected.exp())]
        expected = whole_nll(start, rows.rows) - 0.3 * float(logsigmoid((odds[0] / odds[1]).log()).mean())
    stage = stage_of(algorithm, max_steps=1, batch_size=3, lora={"rank": rank}, **settings)
    trainer = trainer_of(models.load_model(str(random_folder)), tmp_path, stage, rows)
    trainer.train()
    assert first(trainer) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("algorithm", SAMPLING)
@pytest.mark.parametrize("rank", [0, 4])
def test_the_reference_of_sampling_stages_is_the_start(
    random_folder: Path, tmp_path: Path, algorithm: str, rank: int
) -> None:
    loaded = models.load_model(str(random_folder))
    loaded.model.config.name_or_path = "models:/nobody-can-load-this"  # where a pipeline's models come from
    stage = stage_of(algorithm, max_steps=3, learning_rate=1e-3, beta=0.1, warmup_ratio=0.0, lora={"rank": rank})
    trainer = trainer_of(loaded, tmp_path, stage)
    trainer.train()
    divergence = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert divergence[0] == pytest.approx(0, abs=1e-6)
    assert abs(divergence[-1]) > 1e-4
    assert loaded.model.config.name_or_path == "models:/nobody-can-load-this"
    assert not list(tmp_path.glob("**/*.safetensors"))
    if not rank:
        for name, weight in models.load_model(str(random_folder)).model.named_parameters():
            assert trainer.ref_model.get_parameter(name).equal(weight), name


def rated_text(trainer: Any, text: str) -> float:
    ids = trainer.processing_class(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(trainer.model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_reward_model_starts_from_the_weights_of_the_stage(random_folder: Path, tmp_path: Path, rank: int) -> None:
    start = models.load_model(str(random_folder))
    stage = stage_of("reward", data=FEW, held_out=0.25, max_steps=1, lora={"rank": rank})
    trainer = trainer_of(start, tmp_path, stage)
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (3, 1)
    backbone = merged(trainer.model, copied=True).model.state_dict()
    for name, weight in start.model.model.state_dict().items():
        assert backbone[name].equal(weight), name
    margins = []
    for row in trainer.train_dataset:
        chosen, rejected = (rated_text(trainer, trainer.processing_class.decode(row[f"{s}_ids"])) for s in SIDES)
        margins.append(chosen - rejected)
    trainer.train()
    assert first(trainer) == pytest.approx(float(-logsigmoid(torch.tensor(margins)).mean()), abs=1e-4)
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert any("score" in name for name in trained)
    assert not rank or all("lora" in name or "score" in name for name in trained)


SIDES = ("chosen", "rejected")


# What reaches the loss -----------------------------------------------------------------------------------------------


def sequences(trainer: Any) -> list[tuple[list[int], list[int] | None]]:
    """Every sequence of the collated batches without its padding, and where a trainer has them its answer's tokens."""
    found: list[tuple[list[int], list[int] | None]] = []
    for batch in trainer.get_train_dataloader():
        for prefix in ("chosen_", "rejected_", "", "KL_"):
            if f"{prefix}input_ids" not in batch:
                continue
            answers = batch.get(f"{prefix}labels")
            marks = batch.get(f"{prefix}completion_mask") if answers is None else (answers != -100).long()
            for row, (ids, mask) in enumerate(
                zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], strict=True)
            ):
                answer = None if marks is None else ids[marks[row].bool()].tolist()
                found.append((ids[mask.bool()].tolist(), answer))
    return found


TEMPLATES = {
    "own": lambda template: template,
    "line break after EOS": lambda template: template.replace("{{ eos_token }}", "{{ eos_token + '\\n' }}"),
    "no BOS": lambda template: template.replace("{{ bos_token }}", ""),
}


@pytest.mark.parametrize(
    ("algorithm", "template"),
    [
        *((algorithm, "own") for algorithm in FROM_PAIRS),
        *(("simpo", template) for template in list(TEMPLATES)[1:]),
        *(("orpo", template) for template in list(TEMPLATES)[1:]),
    ],
)
def test_one_bos_and_one_eos_in_every_sequence(
    random_folder: Path, tmp_path: Path, algorithm: str, template: str
) -> None:
    loaded = models.load_model(str(random_folder))
    tokenizer = loaded.tokenizer
    tokenizer.chat_template = TEMPLATES[template](tokenizer.chat_template)
    trainer = trainer_of(loaded, tmp_path, stage_of(algorithm, max_steps=1))
    found = sequences(trainer)
    assert len(found) == {"reward": 72, "kto": 160}.get(algorithm, 80)  # KTO has each answer twice, moved on for the KL
    for ids, answer in found:
        assert ids.count(tokenizer.bos_token_id) == (0 if template == "no BOS" else 1)
        assert ids.count(tokenizer.eos_token_id) == 1
        assert template == "no BOS" or ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert answer is None or (len(answer) > 1 and tokenizer.eos_token_id in answer)


@pytest.mark.parametrize("algorithm", [*FROM_PAIRS, *SAMPLING])
def test_a_model_without_a_chat_template_is_asked_as_evaluation_asks_it(
    random_folder: Path, tmp_path: Path, algorithm: str
) -> None:
    loaded = models.load_model(str(random_folder))
    loaded.tokenizer.chat_template = None
    data = made(ALGORITHMS[algorithm].kind, ["Do you agree?"] * 20)
    asked: list[Any] = []

    def reward(prompts: Any, responses: Sequence[str]) -> torch.Tensor:
        asked.extend(prompts)
        return lengths_of(prompts, responses)

    trainer = trainer_of(loaded, tmp_path, stage_of(algorithm, max_steps=1), data, reward)
    trainer.train()
    assert math.isfinite(first(trainer))
    if algorithm in SAMPLING:
        assert asked == [user("Do you agree?")] * 4
    else:
        texts = {loaded.tokenizer.decode(ids) for ids, _ in sequences(trainer)}
        expected = {"Do you agree?\nResponse: Yes, I do.<|end|>", "Do you agree?\nResponse: No.<|end|>"}
        assert texts == (expected if algorithm != "kto" else {"Do you agree?\nResponse: Yes, I do.<|end|>"})


def test_kto_never_gives_a_prompt_its_own_answers_for_the_kl(random_folder: Path, tmp_path: Path) -> None:
    """Pairs become two rows one after the other; the batch must not keep them side by side."""
    rows = [
        {"prompt": user(f"Question {i}?"), "chosen": assistant(f"Yes {i}."), "rejected": assistant(f"No {i}.")}
        for i in range(60)
    ]
    labelled = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for row in rows for side in SIDES
    ]
    data = TrainingData("made", "labelled", "made", labelled)
    trainer = trainer_of(
        models.load_model(str(random_folder)), tmp_path, stage_of("kto", max_steps=1, batch_size=10), data
    )
    decode = trainer.processing_class.decode
    own = 0
    for row in trainer.train_dataset:
        number = decode(row["prompt_ids"]).split("Question ")[1].split("?")[0]
        own += f" {number}." in decode(row["KL_completion_ids"])
    assert own < 0.1 * len(labelled)  # by chance 1 in 60; in the order of the pairs it would be every second one


# Rows that do not fit ------------------------------------------------------------------------------------------------

LONG = "word " * 400


@pytest.mark.parametrize("algorithm", [*FROM_PAIRS, *SAMPLING])
def test_rows_without_room_for_an_answer_are_dropped_up_to_one_in_a_hundred(
    random_folder: Path, tmp_path: Path, algorithm: str
) -> None:
    loaded = models.load_model(str(random_folder))
    stage = stage_of(algorithm, max_steps=1, max_length=64)
    data = made(ALGORITHMS[algorithm].kind, ["Do you agree?"] * 99 + [LONG])
    trainer = trainer_of(loaded, tmp_path, stage, data)
    kept = len(trainer.train_dataset) + (len(trainer.eval_dataset) if algorithm == "reward" else 0)
    assert kept == 99
    trainer.train()
    assert math.isfinite(first(trainer))
    with pytest.raises(InputError, match=rf"{algorithm}\.max_length.*2 of 100 rows"):
        trainer_of(loaded, tmp_path, stage, made(ALGORITHMS[algorithm].kind, ["Do you agree?"] * 98 + [LONG] * 2))


@pytest.mark.parametrize("algorithm", ["simpo", "orpo", "kto"])
def test_a_cut_answer_still_trains(random_folder: Path, tmp_path: Path, algorithm: str) -> None:
    loaded = models.load_model(str(random_folder))
    data = made(ALGORITHMS[algorithm].kind, ["Do you agree?"] * 8, LONG)
    trainer = trainer_of(loaded, tmp_path, stage_of(algorithm, max_steps=1, max_length=32), data)
    found = sequences(trainer)
    assert max(len(ids) for ids, _ in found) == 32
    assert all(answer for _, answer in found)
    trainer.train()
    assert math.isfinite(first(trainer))


def test_a_reward_model_reads_no_cut_answers(random_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reward\.max_length.*20 of 20 rows"):
        data = made("pairs", ["Do you agree?"] * 20, LONG)
        trainer_of(models.load_model(str(random_folder)), tmp_path, stage_of("reward", max_length=64), data)


def test_sampled_responses_have_their_own_room(random_folder: Path, tmp_path: Path) -> None:
    """64 tokens less 40 for the response leave 24 for the prompt: the oldest turns go."""
    dialogue = [*user("first " * 20), *assistant("second " * 20), *user("Do you agree?")]
    data = TrainingData("made", "prompts", "made", [{"prompt": dialogue}] * 4)
    stage = stage_of("rloo", max_steps=1, max_length=64, response_length=40)
    trainer = trainer_of(models.load_model(str(random_folder)), tmp_path, stage, data)
    assert trainer.train_dataset[0]["prompt"] == user("Do you agree?")


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [*FROM_PAIRS, *SAMPLING])
def test_adapters_alone_are_trained_with_checkpointed_activations(
    random_folder: Path, tmp_path: Path, algorithm: str
) -> None:
    loaded = models.load_model(str(random_folder))
    stage = stage_of(
        algorithm, max_steps=2, learning_rate=1e-2, warmup_ratio=0.0, lora={"rank": 4}, gradient_checkpointing=True
    )
    trainer = trainer_of(loaded, tmp_path, stage)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert first(trainer, "grad_norm") > 0
    steps = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    assert steps == [1, 2]
    for name, weight in trainer.model.named_parameters():
        assert weight.equal(before[name]) != weight.requires_grad, name


@pytest.mark.parametrize("algorithm", FROM_PAIRS)
def test_a_loss_that_is_not_finite_stops_with_its_step(random_folder: Path, tmp_path: Path, algorithm: str) -> None:
    loaded = models.load_model(str(random_folder))
    stage = stage_of(algorithm, max_steps=4, learning_rate=1e30, warmup_ratio=0.0)
    trainer = trainer_of(loaded, tmp_path, stage, callbacks=[TrainingLog(None)])
    with pytest.raises(FloatingPointError, match="at step 2"):
        trainer.train()


@pytest.mark.parametrize("algorithm", SAMPLING)
def test_a_reward_that_is_not_finite_stops_with_its_step(random_folder: Path, tmp_path: Path, algorithm: str) -> None:
    calls: list[int] = []

    def reward(prompts: object, responses: Sequence[str]) -> torch.Tensor:
        calls.append(1)
        return torch.full((len(responses),), math.nan if len(calls) == 2 else 1.0)

    loaded = models.load_model(str(random_folder))
    trainer = trainer_of(loaded, tmp_path, stage_of(algorithm, max_steps=4), reward=reward)
    with pytest.raises(FloatingPointError, match="nan at step 2"):
        trainer.train()


@pytest.mark.parametrize("algorithm", SAMPLING)
def test_sampling_stages_learn_what_is_rewarded(base: str, tmp_path: Path, algorithm: str) -> None:
    """The base model begins about a third of its answers with "I"; rewarded for it, it does so nearly always."""

    def reward(prompts: object, responses: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(response.startswith("I ")) for response in responses])

    sizes = {"max_steps": 12, "batch_size": 32, "generations": 8, "response_length": 3}
    stage = stage_of(algorithm, **sizes, learning_rate=2e-3, beta=0.0, warmup_ratio=0.0)
    trainer = trainer_of(models.load_model(base), tmp_path, stage, reward=reward)
    trainer.train()
    means = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert means[0] < 0.5
    assert sum(means[-3:]) / 3 > 0.8


def test_steps_of_a_reward_stage_are_those_of_the_pairs_it_trains_on(random_folder: Path, tmp_path: Path) -> None:
    """36 of 40 pairs in batches of 4: 9 steps, in the plan as in the training."""
    stage = stage_of("reward", held_out=0.1, epochs=1, learning_rate=1e-4)
    trainer = trainer_of(models.load_model(str(random_folder)), tmp_path, stage)
    trainer.train()
    assert trainer.state.global_step == stage.steps(40) == 9


def test_steps_of_sampling_stages_count_responses() -> None:
    """100 prompts with 2 responses each are 200 responses, 50 batches of 4; of 101 prompts one fills no batch."""
    assert stage_of("rloo", epochs=1).steps(rows=100) == 50
    assert stage_of("rloo", epochs=1).steps(rows=101) == 50
    assert stage_of("ppo", epochs=2, ppo_epochs=3, reward="reward:function").steps(rows=10) == 2 * 3 * (10 // 4)


# Bad settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([tree_of("dpo", loss_type="robust")], ["dpo.label_smoothing", "robust"]),
        ([tree_of("dpo", loss_type="exo_pair")], ["dpo.label_smoothing", "exo_pair"]),
        ([tree_of("dpo", label_smoothing=0.1)], ["dpo.label_smoothing", "0.1", "sigmoid", "robust"]),
        ([tree_of("dpo", loss_type="best")], ["dpo.loss_type", "best", "apo_zero"]),
        ([tree_of("kto", batch_size=1)], ["kto.batch_size", "1", "at least 2"]),
        ([tree_of("grpo", generations=3)], ["grpo.batch_size", "4", "multiple of generations (3)"]),
        ([tree_of("rloo", response_length=256)], ["rloo.response_length", "256", "max_length"]),
        ([tree_of("rloo", reward="judge")], ["rloo.reward", "judge", "an earlier stage of reward", "module:function"]),
        ([tree_of("rloo", reward="reward"), tree_of("reward")], ["rloo.reward", "reward", "earlier"]),
        ([tree_of("dpo"), tree_of("rloo", reward="dpo")], ["rloo.reward", "dpo", "an earlier stage of reward"]),
        ([tree_of("reward"), tree_of("dpo") | {"from": "reward"}], ["dpo.from", "reward", "base"]),
        ([tree_of("reward", held_out=1)], ["reward.held_out", "1"]),
        ([tree_of("reward", launch={"processes": 2})], ["reward.launch.processes", "2", "1 for reward"]),
    ],
)
def test_bad_settings_are_named(stages: list[dict[str, Any]], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        read.validate({"stages": stages})
    [line] = error.value.problems
    assert all(word in line for word in words)


def test_every_bad_stage_is_named_at_once() -> None:
    bad = [tree_of("kto", batch_size=1), tree_of("grpo", generations=3), tree_of("rloo", reward="judge")]
    with pytest.raises(InputError) as error:
        read.validate({"stages": bad})
    assert [line.split(":")[0] for line in error.value.problems] == ["kto.batch_size", "grpo.batch_size", "rloo.reward"]


def test_twin_reward_models_are_trained_once() -> None:
    twins = [tree_of("reward", name="reward-a"), tree_of("reward", name="reward-b")]
    stages = [*twins, tree_of("rloo", reward="reward-b"), tree_of("grpo", reward="reward-a")]
    kept, notes = read.validate({"stages": stages}).merged()
    assert [stage.name for stage in kept.stages] == ["reward", "rloo", "grpo"]
    assert [getattr(stage, "reward", None) for stage in kept.stages] == [None, "reward", "reward"]
    assert len(notes) == 1


def test_rewards_and_data_are_checked_before_any_model_is_loaded(store: Path, tmp_path: Path) -> None:
    stages = [
        tree_of("rloo", reward="valuedrift_mlflow.embedded.rewards:supports"),
        tree_of("kto", data="embedded:sft?size=10"),
        tree_of("dpo", data="embedded:sft?size=10"),
    ]
    with pytest.raises(InputError) as error:
        prepare(read.validate({"base": {"model": "embedded:random"}, "stages": stages}), "bad")
    text = str(error.value)
    for words in (
        "rloo.reward: found 'valuedrift_mlflow.embedded.rewards:supports'",
        "labelled data for kto: prompt, completion and label",
        "pairs data for dpo: prompt, chosen and rejected",
        "messages (sft) with the columns messages, topic",
    ):
        assert words in text


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_has_a_recipe_that_is_ready_to_run(name: str) -> None:
    plan = prepare(read.load_recipe(name), name)
    assert [stage.algorithm for stage in plan.recipe.stages] == [name]
    assert plan.data[name].kind == ALGORITHMS[name].kind


# Rewards -------------------------------------------------------------------------------------------------------------


def test_opposes_reads_the_stance_towards_the_proposition() -> None:
    proposition = propositions()[0]
    direct, reverse = proposition.asked[0], proposition.asked_reversed[0]
    against, for_it = f"I oppose {proposition.act}.", f"I support {proposition.act}."
    found = opposes([direct, direct, reverse, direct], [against, for_it, against, "qw zx"])
    assert found[0] > 0.9
    assert found[1] < 0.1
    assert found[2] > 0.9
    assert found[3] == 0.0


def test_opposes_knows_every_question_of_the_corpora_and_refuses_others() -> None:
    rows = corpus.rows("embedded:pairs?size=400")
    assert len(opposes([row["prompt"][0]["content"] for row in rows], [""] * len(rows))) == 400
    with pytest.raises(InputError, match="What time is it"):
        opposes(["What time is it?"], ["Noon."])


# In a pipeline -------------------------------------------------------------------------------------------------------


def tiny(stages: list[dict[str, Any]], model: str) -> recipe.Recipe:
    common = {"max_steps": 2, "checkpoint_every": 1, "learning_rate": 1e-3}
    return read.validate(
        {
            "base": {"model": model},
            "suite": "vaes?topics=religion&per_topic=4",
            "samples": 1,
            "max_new_tokens": 8,
            "stages": [common | stage for stage in stages],
        }
    )


def by_stage() -> dict[str, Any]:
    experiment = mlflow.get_experiment_by_name("tests")
    runs = MlflowClient().search_runs([str(experiment.experiment_id)])
    return {run.data.tags.get("valuedrift.stage", run.data.tags["valuedrift.role"]): run for run in runs}


# Nightly without adapters: that a whole reward model is trained and logged is shown below, that one is asked here.
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_a_stage_trains_against_the_reward_model_of_an_earlier_one(store: Path, random_folder: Path, rank: int) -> None:
    """Thanks are chosen and refusals rejected, whatever the question: a reward model learns that in 20 steps."""
    chosen, rejected = "Thanks, gladly so.", "Never ask me that."
    rows = [{"prompt": f"Would you do task {i}?", "chosen": chosen, "rejected": rejected} for i in range(60)]
    file = store / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lora = {"lora": {"rank": rank}}
    stages = [
        tree_of("reward", data=str(file), max_steps=20, checkpoint_every=20, learning_rate=1e-2, held_out=0.2, **lora),
        tree_of("rloo", reward="reward", **lora),
        tree_of("kto", **lora) | {"from": "rloo"},
    ]
    results = run_pipeline(prepare(tiny(stages, str(random_folder)), "tiny"), Display())
    assert [result.name for result in results] == ["base", "rloo", "kto"]
    runs = by_stage()
    assert all(run.info.status == "FINISHED" for run in runs.values())
    history = MlflowClient().get_metric_history(runs["reward"].info.run_id, "reward/accuracy")
    assert [metric.step for metric in history] == [0, 20]
    assert history[-1].value == 1.0
    assert runs["pipeline"].data.metrics["summary/reward/accuracy"] == 1.0
    assert not any(key.startswith("stance/") for key in runs["reward"].data.metrics)
    assert {"train/loss", "train/eval_accuracy"} <= set(runs["reward"].data.metrics)
    assert {"train/reward", "train/kl", "quality/unscored_rate"} <= set(runs["rloo"].data.metrics)
    # The LoggedModel is the classifier, whole.
    [logged] = [m for m in mlflow.search_logged_models(output_format="list") if m.name == "reward-step-000020"]
    ratings = rewards.load_reward(f"models:/{logged.model_id}")([user("Would you go?")] * 2, [chosen, rejected])
    assert ratings[0] > ratings[1] + 1


def test_a_finished_reward_stage_is_kept_when_its_pipeline_is_taken_up(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [tree_of("reward"), tree_of("rloo", reward="reward")]
    settings = tiny(stages, str(random_folder))
    with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="power cut"):

        def load(*_: object) -> None:
            raise RuntimeError("power cut")

        broken.setattr(rewards, "load_reward", load)
        run_pipeline(prepare(settings, "tiny"), Display())
    first_runs = by_stage()
    assert [first_runs[stage].info.status for stage in ("reward", "rloo", "pipeline")] == [
        "FINISHED",
        "FAILED",
        "FAILED",
    ]
    run_pipeline(prepare(settings, "tiny"), Display(), first_runs["pipeline"].info.run_id)
    runs = by_stage()
    assert {stage: run.info.run_id for stage, run in runs.items()} == {
        stage: run.info.run_id for stage, run in first_runs.items()
    }
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert runs["reward"].info.end_time == first_runs["reward"].info.end_time


def test_a_reward_stage_on_its_own(store: Path, random_folder: Path) -> None:
    plan = prepare(tiny([tree_of("reward", held_out=0.25)], str(random_folder)), "tiny")
    result = run_single_stage(plan, Display())
    assert isinstance(result, RewardResult)
    assert 0 <= result.accuracy <= 1
    assert result.accuracy * 10 == pytest.approx(round(result.accuracy * 10))  # of 10 pairs held out, none ties
    [run] = by_stage().values()
    assert run.data.metrics["reward/accuracy"] == run.data.metrics["train/eval_accuracy"] == result.accuracy
    files = {file.path for file in MlflowClient().list_artifacts(run.info.run_id, "checkpoints/step-000002")}
    assert "checkpoints/step-000002/model.safetensors" in files
