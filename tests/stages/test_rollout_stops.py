"""A text of ``stop`` ends what a stage samples where it ends what is measured: tokens, masks, flags and rewards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.models.stopping import rollout_ends
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.group_trainers import LastToken
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job, Stage

ANSWER, STOP, LONGEST = "I support it.", "User:", 40
SAID = f"{ANSWER} {STOP} Human: I oppose it, I oppose it. "
ROLLOUTS = ["ppo", "grpo", "rloo"]
PLAIN = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}: {% endif %}"


@pytest.fixture
def loaded(random_folder: Path) -> Loaded:
    loaded = models.load_model(str(random_folder))
    loaded.tokenizer.chat_template = PLAIN
    return loaded


def script(loaded: Loaded, text: str) -> None:
    """Let the model say these tokens one after the other: the next one is told by the last one's place in the text."""
    tokens = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = [0]

    def begin(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None and ids.shape[1] > 1:  # a prompt, or prompt and response at once
            prompt[0] = -1
        prompt[0] += 1

    def choose(_module: object, _inputs: object, logits: torch.Tensor) -> torch.Tensor:
        if logits.shape[1] > 1:
            return logits
        bias = torch.zeros(logits.shape[-1])
        bias[tokens[prompt[0] % len(tokens)]] = 1e4
        return logits + bias

    loaded.model.register_forward_pre_hook(begin, with_kwargs=True)
    loaded.model.get_output_embeddings().register_forward_hook(choose)


def stage_of(algorithm: str, **settings: Any) -> Stage:
    tree = {"name": algorithm, "algorithm": algorithm, "data": "embedded:pairs?size=8", "response_length": LONGEST}
    tree |= {"batch_size": 4, "max_length": 256, "max_steps": 1, "reward": "valuedrift_mlflow.embedded.rewards:opposes"}
    tree |= {} if algorithm == "ppo" else {"generations": 2}
    return read.validate({"stages": [tree | settings]}).stages[0]


class Rated:
    """A reward that keeps what it has read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, _: object, responses: Sequence[str]) -> torch.Tensor:
        self.texts += responses
        return torch.arange(len(responses), dtype=torch.float32)


def trainer_of(loaded: Loaded, stage: Stage, folder: Path, speech: Speech, reward: Rated) -> Any:
    rows: TrainingData = datasets.load_data(stage.data, stage.kind)
    return build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, folder, 0, [], reward, speech=speech))


def up_to_stop(loaded: Loaded) -> list[int]:
    """The tokens of what is said up to the stop and with it."""
    tokens = loaded.tokenizer(SAID, add_special_tokens=False)["input_ids"]
    decoded = [loaded.tokenizer.decode(tokens[:count]) for count in range(len(tokens) + 1)]
    return list(tokens[: next(count for count, text in enumerate(decoded) if STOP in text)])


def sampled(trainer: Any, algorithm: str) -> tuple[list[list[int]], list[bool]]:
    """The responses of a rollout as the loss sees them, and which of them count as ended."""
    rows = [trainer.train_dataset[at] for at in range(4)]
    if algorithm == "ppo":
        with torch.no_grad():
            tokens, _, mask, ended = trainer._answer([row["prompt_ids"] for row in rows])
        said = [ids[kept].tolist() for ids, kept in zip(tokens[:, -mask.shape[1] :], mask, strict=True)]
        return said, ended.tolist()
    trainer.model.train()  # its numbers are kept apart by that
    made = trainer._generate_and_score_completions(rows)
    pairs = zip(made["completion_ids"], made["completion_mask"].bool(), strict=True)
    cut = trainer._metrics["train"]["completions/clipped_ratio"][-1]
    assert cut in (0, 1)  # all the same here
    return [ids[kept].tolist() for ids, kept in pairs], [cut == 0] * len(made["completion_ids"])


@pytest.mark.parametrize("algorithm", ROLLOUTS)
def test_a_rollout_ends_where_the_measurement_ends(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    reward, speech = Rated(), Speech(stop=(STOP,))
    settings = {} if algorithm == "ppo" else {"trainer": {"mask_truncated_completions": True}}
    trainer = trainer_of(loaded, stage_of(algorithm, **settings), tmp_path, speech, reward)
    script(loaded, SAID)
    [[measured]] = loaded.generator().generate(["Why?"], ["a"], Sampling(1, 0.0, LONGEST, speech=speech), lambda _: 0)
    assert measured == ANSWER
    said, ended = sampled(trainer, algorithm)
    assert said == [up_to_stop(loaded)] * 4
    assert ended == [True] * 4
    if algorithm != "ppo":  # PPO rates apart from sampling
        assert reward.texts == [ANSWER] * 4


@pytest.mark.parametrize("algorithm", ROLLOUTS)
def test_without_the_stop_a_rollout_goes_on_to_its_length(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    trainer = trainer_of(loaded, stage_of(algorithm), tmp_path, Speech(), Rated())
    script(loaded, SAID)
    said, ended = sampled(trainer, algorithm)
    assert {len(tokens) for tokens in said} == {LONGEST}
    assert ended == [False] * 4
    assert "generate" not in vars(loaded.model)  # nothing is left on it


def test_ppo_rates_the_answer_and_spares_it_the_penalty_of_a_missing_end(loaded: Loaded, tmp_path: Path) -> None:
    reward = Rated()
    trainer = trainer_of(loaded, stage_of("ppo", missing_eos_penalty=5.0), tmp_path, Speech(stop=(STOP,)), reward)
    script(loaded, SAID)
    rollout = trainer.collect([trainer.train_dataset[at] for at in range(4)])
    assert reward.texts == [ANSWER] * 4
    assert rollout.mask.sum(dim=1).tolist() == [len(up_to_stop(loaded))] * 4
    assert float(rollout.kl.masked_fill(rollout.mask, 0).abs().sum()) == 0


@pytest.mark.parametrize("algorithm", ROLLOUTS)
def test_a_stage_with_a_stop_is_trained(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    """A random model that stops at a frequent letter: responses of many lengths, none with anything behind it."""
    reward = Rated()
    trainer = trainer_of(loaded, stage_of(algorithm), tmp_path, Speech(stop=("e",)), reward)
    trainer.train()
    assert trainer.state.global_step == 1
    assert reward.texts and not any("e" in text for text in reward.texts)


def test_a_stop_within_a_thought_ends_no_rollout(loaded: Loaded) -> None:
    said = f"<think>{STOP} hm</think>{ANSWER}{STOP} And"
    loaded.tokenizer.chat_template = PLAIN + "{# <think> #}"
    tokens = loaded.tokenizer(said, add_special_tokens=False)["input_ids"]
    ends = rollout_ends(loaded.tokenizer, Speech(stop=(STOP,), thinking=True), 200, 0, 1)
    assert ends is not None
    ends.read(0, tokens)
    assert ends.stopped == [True]
    assert loaded.tokenizer.decode(tokens[: ends.kept[0]]).startswith(f"<think>{STOP} hm</think>{ANSWER}{STOP}")


def test_a_response_as_long_as_it_may_be_has_not_stopped(loaded: Loaded) -> None:
    tokens = loaded.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    ends = rollout_ends(loaded.tokenizer, Speech(stop=(STOP,)), len(tokens), 0, 1)
    assert ends is not None
    ends.read(0, tokens)
    assert (ends.kept, ends.stopped) == ([len(tokens)], [False])


def test_what_another_sampler_went_on_to_say_is_cut_with_its_numbers(loaded: Loaded, tmp_path: Path) -> None:
    """As vLLM gives tokens and log-probabilities."""
    trainer = trainer_of(loaded, stage_of("grpo"), tmp_path, Speech(stop=(STOP,)), Rated())
    tokens, kept = loaded.tokenizer(SAID, add_special_tokens=False)["input_ids"], up_to_stop(loaded)
    numbers = [-float(at) for at in range(len(tokens))]
    said, log_probs = trainer._up_to_their_ends([tokens, tokens[:2]], [numbers, numbers[:2]])
    assert said == [kept, tokens[:2]]
    assert log_probs == [numbers[: len(kept)], numbers[:2]]
    assert said[0][-1] in [loaded.tokenizer.eos_token_id]  # which TRL asks
    assert said[1][-1] not in [loaded.tokenizer.eos_token_id]
    assert torch.tensor(said[0]).tolist() == kept
    assert loaded.tokenizer.decode(said[0]) == loaded.tokenizer.decode(kept)
    assert isinstance(said[0][-1], LastToken)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_vllm_is_told_the_stops(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    given = {"generation_kwargs": {"stop": "###", "seed": 1}}
    stage: Any = stage_of(algorithm, backend="vllm", trainer=given)
    rows = datasets.load_data(stage.data, stage.kind)
    job = Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, 0, speech=Speech(stop=(STOP,)))
    assert stage.arguments(job)["generation_kwargs"] == {"stop": ["###", STOP], "seed": 1}
