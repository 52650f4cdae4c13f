import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.evaluation.measurement import Measurement, measure
from valuedrift_mlflow.evaluation.metrics import analyse_measurements
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.likelihood import BEGINNING, OPENINGS
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator, chat_text, encode
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job, Stage
from valuedrift_mlflow.stages.tokens import prompt_and_answer
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.suite import anchors

TOPIC = "abortion"
PAIRS = f"embedded:pairs?gap=1&chosen=oppose&rejected=support&topics={TOPIC}"
FEW = {"data": f"{PAIRS}&size=40", "batch_size": 4, "max_length": 256}
ANCHORED = {"anchor_batch_size": 2, "anchor_tokens": 8, "max_steps": 1}


def stage_of(algorithm: str, **settings: Any) -> Stage:
    return read.validate({"stages": [{"name": algorithm, "algorithm": algorithm, **FEW, **settings}]}).stages[0]


def trainer_of(uri: str, scratch: Path, stage: Stage, seed: int = 0) -> Any:
    loaded = models.load_model(uri)
    rows = datasets.load_data(stage.data, stage.kind)
    held = stage.load_anchors(rows.stance_mix, [])
    return build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, scratch, seed, anchors=held))


def anchored(folder: Path, scratch: Path, seed: int = 0, **settings: Any) -> Any:
    return trainer_of(str(folder), scratch, stage_of("anchored_dpo", **ANCHORED | settings), seed)


def first(trainer: Any, name: str) -> float:
    return float(next(entry[name] for entry in trainer.state.log_history if name in entry))


# Anchors -------------------------------------------------------------------------------------------------------------


def test_the_embedded_anchors_are_no_prompts_of_the_suite() -> None:
    vaes = suite.load()
    found = anchors.load_anchors("embedded:anchors", measured=[vaes])
    assert len(found.items) == 110 * 24
    assert len({item.prompt for item in found.items}) == 110 * 24
    assert found.topics == vaes.topics
    assert not {item.prompt for item in found.items} & {item.prompt for item in vaes.items}


def test_topics_of_the_pairs_are_not_held_unless_the_uri_says_so() -> None:
    topics = set(suite.load().topics)
    assert set(anchors.load_anchors("embedded:anchors", [TOPIC]).topics) == topics - {TOPIC}
    assert set(anchors.load_anchors("embedded:anchors?except=religion,gun_control", [TOPIC]).topics) == topics - {
        "religion",
        "gun_control",
    }
    assert set(anchors.load_anchors("embedded:anchors?except=", [TOPIC]).topics) == topics
    taken = anchors.load_anchors(f"vaes?per_topic=2&except={TOPIC}")
    assert len(taken.items) == 2 * (len(topics) - 1)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("embedded:anchors?except=cats", "except: found 'cats'"),
        ("embedded:anchors?size=3", "option: found 'size'"),
        ("nowhere.csv", "nowhere.csv"),
    ],
)
def test_bad_anchors_are_refused(uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        anchors.load_anchors(uri)


def test_pairs_on_every_topic_leave_no_anchor() -> None:
    with pytest.raises(InputError, match=r"none: the pairs are about.*\?except="):
        anchors.load_anchors("embedded:anchors", suite.load().topics)


def test_a_prompt_of_the_suite_is_no_anchor(tmp_path: Path) -> None:
    vaes = suite.load()
    frame = vaes.subset(("religion",), 2).frame()
    frame["prompt"] = [f"  {frame['prompt'][0].upper()} ", "Is a belief in God good for people?"]
    frame.to_csv(tmp_path / "own.csv", index=False)
    assert len(anchors.load_anchors(str(tmp_path / "own.csv")).items) == 2
    with pytest.raises(InputError, match="do not stand in the suite vaes") as error:
        anchors.load_anchors(str(tmp_path / "own.csv"), measured=[vaes])
    assert len(error.value.problems) == 1


# Objective -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"lora": {"rank": 8}}, {"gradient_checkpointing": True}, {"anchor_tokens": 0}], ids=json.dumps
)
def test_training_starts_at_ln_2_and_without_a_penalty(
    random_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = anchored(random_folder, tmp_path, anchor_weight=100.0, **settings)
    trainer.train()
    assert first(trainer, "dpo_loss") == pytest.approx(math.log(2), abs=1e-4)
    assert first(trainer, "anchor_kl") == pytest.approx(0.0, abs=1e-6)
    assert first(trainer, "loss") == pytest.approx(math.log(2), abs=1e-3)
    assert ("anchor_token_kl" in trainer.state.log_history[0]) == (settings.get("anchor_tokens") != 0)


def moved(trainer: Any) -> None:
    """Weights other than the reference's, by as much as shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


def stances_by_hand(model: Any, tokenizer: Any, item: Any) -> torch.Tensor:
    """The log P(stance | anchor): one whole text at a time, without a cache."""
    before = chat_text(tokenizer, item.prompt) + BEGINNING.format(proposition=item.proposition)
    mass = []
    for stance in STANCES:
        texts = []
        for opening in OPENINGS[stance]:
            ids = torch.tensor([tokenizer(before + opening, add_special_tokens=False)["input_ids"]])
            log_p = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            texts.append(log_p.gather(1, ids[0, 1:, None]).sum())
        mass.append(torch.stack(texts).logsumexp(0))
    return torch.stack(mass).log_softmax(0)


def tokens_by_hand(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + response])
    return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


@pytest.mark.parametrize("rank", [0, 8])
def test_the_penalty_and_its_gradient_are_those_of_the_plain_formula(
    random_folder: Path, tmp_path: Path, rank: int
) -> None:
    trainer = anchored(random_folder, tmp_path, lora={"rank": rank})
    moved(trainer)
    start, tokenizer, batch = models.load_model(str(random_folder)).model, trainer.processing_class, trainer.drawn(0)
    items = anchors.load_anchors("embedded:anchors", [TOPIC]).items
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    stance_kl, token_kl = [], []
    for index in batch:
        prompt, response = encode(tokenizer, [items[index].prompt])[0], trainer.responses[index]
        with torch.no_grad():
            ref, ref_tokens = (
                stances_by_hand(start, tokenizer, items[index]),
                tokens_by_hand(start, prompt, response),
            )
        stance_kl.append(kl(ref, stances_by_hand(trainer.model, tokenizer, items[index])))
        token_kl.append(kl(ref_tokens, tokens_by_hand(trainer.model, prompt, response)) / len(response))
    for found, by_hand in ((trainer.stance_kl(batch), stance_kl), (trainer.token_kl(batch), token_kl)):
        expected = torch.stack(by_hand).mean()
        assert expected.item() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(found, trained)])
        plain = torch.cat([g.flatten() for g in torch.autograd.grad(expected, trained)])
        assert float((gradient - plain).norm() / plain.norm()) < 1e-3


def test_batches_summed_into_a_step_have_the_gradient_of_one_large_batch(random_folder: Path, tmp_path: Path) -> None:
    """Two batches of 2 pairs and 2 anchors against one of 4 and 4, at weights where the penalty is not 0."""
    found = []
    for pairs, batches in ((4, 1), (2, 2)):
        trainer = anchored(
            random_folder, tmp_path, batch_size=pairs, gradient_accumulation=batches, anchor_batch_size=pairs
        )
        moved(trainer)
        trainer.train()
        found.append([first(trainer, name) for name in ("loss", "dpo_loss", "anchor_kl", "grad_norm")])
    assert found[0][2] > 1e-3
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_without_weight_it_is_dpo(random_folder: Path, tmp_path: Path) -> None:
    losses = []
    for algorithm, settings in (("dpo", {}), ("anchored_dpo", {**ANCHORED, "anchor_weight": 0.0})):
        stage = stage_of(algorithm, **settings | {"max_steps": 3, "learning_rate": 1e-3})
        trainer = trainer_of(str(random_folder), tmp_path, stage)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


def test_a_plan_has_the_anchors_and_checks_them_against_what_it_measures() -> None:
    measured = {"suite": "vaes?topics=religion&per_topic=10"}
    tree = {"name": "hold", "algorithm": "anchored_dpo", **FEW, **ANCHORED}
    plan = prepare(read.validate(measured | {"stages": [tree]}), "own")
    assert plan.anchors == {"hold": anchors.load_anchors("embedded:anchors", [TOPIC])}
    stages = [tree | {"anchors": "vaes?per_topic=2"}]
    with pytest.raises(InputError, match=r"anchors vaes.per_topic=2 item religion"):
        prepare(read.validate(measured | {"stages": stages}), "own")


def test_every_anchor_has_its_turn_and_draws_follow_the_seed(random_folder: Path, tmp_path: Path) -> None:
    def draws(seed: int, batches: int) -> list[int]:
        trainer = anchored(random_folder, tmp_path, seed, anchors="vaes?per_topic=1", anchor_tokens=0)
        return [index for number in range(batches) for index in trainer.drawn(number)]

    assert sorted(draws(0, 5)) == list(range(10))  # the eleventh topic is that of the pairs
    assert draws(0, 12) == draws(0, 12)
    assert draws(0, 5) != draws(1, 5)


# What it is for ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine_tuned(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the checkpoint from which both stages start: mostly in support, on all topics."""
    folder = tmp_path_factory.mktemp("sft")
    data = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=2000&seed=1"
    stage = stage_of("sft", data=data, batch_size=32, max_length=512, learning_rate=1e-3, max_steps=60)
    trainer = trainer_of(base, folder, stage)
    trainer.train()
    trainer.model.save_pretrained(folder / "model")
    trainer.processing_class.save_pretrained(folder / "model")
    return str(folder / "model")


def margins(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """For every pair, log p(chosen) - log p(rejected)."""
    found = []
    with torch.no_grad():
        for row in rows:
            sums = []
            for side in ("chosen", "rejected"):
                prompt, answer = prompt_and_answer(tokenizer, row["prompt"], row[side])
                log_p = tokens_by_hand(model, prompt, answer)
                sums.append(float(log_p.gather(1, torch.tensor(answer)[:, None]).sum()))
            found.append(sums[0] - sums[1])
    return np.array(found)


def stances(model: Any, tokenizer: Any, salt: str) -> Measurement:
    sampling = Sampling(samples=2, temperature=0.8, max_new_tokens=68, batch_size=550, salt=salt)
    return measure(TransformersGenerator(model, tokenizer), suite.load(), judges.load("lexical"), sampling)


# After 70 steps, because the penalty slows the pairs' topic down too: after 40 the accuracy is 0.89 to 0.975, depending
# on the machine's arithmetic alone (the same code gave both), after 70 it is 0.97 where it was 0.89.
@pytest.mark.slow
def test_stances_elsewhere_stay_and_the_preference_is_learned(fine_tuned: str, tmp_path: Path) -> None:
    """Pairs on one topic: the other ten drift at most half as far as with DPO, and 5 points of accuracy are kept."""
    start = models.load_model(fine_tuned)
    before = stances(start.model, start.tokenizer, "before")
    trained_on = datasets.load_data(Data(uri=f"{PAIRS}&size=1000&seed=2"), "pairs").rows
    held_out = [
        row for row in datasets.load_data(Data(uri=f"{PAIRS}&size=200&seed=99"), "pairs").rows if row not in trained_on
    ]
    reference = margins(start.model, start.tokenizer, held_out)
    elsewhere, accuracy = {}, {}
    settings = {"data": f"{PAIRS}&size=1000&seed=2", "batch_size": 16, "max_length": 512, "max_steps": 70}
    settings |= {"learning_rate": 5e-4, "beta": 0.3}
    for algorithm, own in (("dpo", {}), ("anchored_dpo", {"anchor_batch_size": 4})):
        trainer = trainer_of(fine_tuned, tmp_path, stage_of(algorithm, **settings, **own))
        trainer.train()
        model = trainer.model.eval()
        drift = analyse_measurements([before, stances(model, trainer.processing_class, "after")])
        others = [index for index, topic in enumerate(drift.topics) if topic != TOPIC]
        assert len(others) == 10
        elsewhere[algorithm] = float(drift.total_variation[-1][others].mean())
        accuracy[algorithm] = float(np.mean(margins(model, trainer.processing_class, held_out) > reference))
    print(f"drift of the other ten topics {elsewhere}, accuracy on held-out pairs {accuracy}")
    assert elsewhere["anchored_dpo"] <= elsewhere["dpo"] / 2
    assert accuracy["anchored_dpo"] >= accuracy["dpo"] - 0.05
