import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainingArguments,
)

import valuedrift_mlflow
from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages import embedded_base, rewards
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.ppo import PPO
from valuedrift_mlflow.stages.ppo_math import masked_mean, masked_moments
from valuedrift_mlflow.stages.ppo_trainer import METRICS, VALUE_HEAD, PPOTrainer, Rollout
from valuedrift_mlflow.stages.rewards import RewardFunction
from valuedrift_mlflow.stages.stage import Job, Stage

WORDS = [f"w{number}" for number in range(20)]
PAD, END = 0, 1
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
OWN = PPO.model_fields.keys() - Stage.model_fields.keys()  # the settings that are PPO's own
LN_22 = 3.09  # a model with small random weights chooses evenly among 22 tokens


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, no BOS, no chat template."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<end>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def toy_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2 + len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=PAD,
        )
    )


def toy_prompts(count: int) -> Dataset:
    """Prompts of one to five random words."""
    words, tokenizer = random.Random(0), toy_tokenizer()
    texts = [" ".join(words.choices(WORDS, k=words.randint(1, 5))) for _ in range(count)]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": text}] for text in texts],
            "prompt_ids": tokenizer(texts)["input_ids"],
        }
    )


def starts_with_w3(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    """1 for a response that starts with this word: one in 22 by chance."""
    return torch.tensor([float(response.split()[:1] == ["w3"]) for response in responses])


def different_words(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    """A reward that every response has some of."""
    return torch.tensor([len(set(response.split())) / 6 for response in responses])


def toy_trainer(
    folder: Path,
    *,
    reward: RewardFunction = different_words,
    prompts: int = 64,
    model: LlamaForCausalLM | None = None,
    adapters: LoraConfig | None = None,
    **settings: Any,
) -> PPOTrainer:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "remove_unused_columns": False,
    }
    own: dict[str, Any] = {"name": "toy", "algorithm": "ppo", "data": "toy", "reward": "toy:toy"}
    own |= {"response_length": 6, "missing_eos_penalty": 0.0}
    own |= {key: settings.pop(key) for key in OWN & settings.keys()}
    trainer = PPOTrainer(
        model=model or toy_model(),
        args=TrainingArguments(**defaults | settings),
        settings=PPO.model_validate(own),
        reward=reward,
        train_dataset=toy_prompts(prompts),
        processing_class=toy_tokenizer(),
        peft_config=adapters,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer: PPOTrainer, metric: str) -> list[float]:
    return [entry[metric] for entry in trainer.state.log_history if metric in entry]


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def rollout_of(trainer: PPOTrainer, rows: int = 16) -> Rollout:
    return trainer.collect([trainer.train_dataset[row] for row in range(rows)])


def test_reward_rises_on_a_toy_task(tmp_path: Path) -> None:
    trainer = toy_trainer(
        tmp_path,
        reward=starts_with_w3,
        prompts=128,
        per_device_train_batch_size=64,
        learning_rate=1e-2,
        max_steps=100,
        beta=0.01,
        response_length=4,
    )
    trainer.train()
    reward = logged(trainer, "reward")
    assert len(reward) == 100
    assert reward[0] < 0.1
    assert sum(reward[-8:]) / 8 > 0.8
    assert logged(trainer, "entropy")[0] == pytest.approx(LN_22, abs=0.02)


def test_a_larger_beta_keeps_the_policy_nearer_to_the_reference(tmp_path: Path) -> None:
    kl = []
    for beta in (0.01, 0.2, 1.0):
        trainer = toy_trainer(
            tmp_path,
            reward=starts_with_w3,
            per_device_train_batch_size=64,
            learning_rate=1e-2,
            max_steps=36,
            beta=beta,
            response_length=3,
        )
        trainer.train()
        kl.append(sum(logged(trainer, "kl")[-8:]) / 8)
    assert kl[0] > 2 * kl[1] > 4 * kl[2] > 0


def test_the_value_loss_leaves_the_policy_alone(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    rollout = rollout_of(trainer)
    values = trainer.model(rollout.sequences, rollout.attention, rollout.mask.shape[1], 1.0).values
    ((values - 1) ** 2).sum().backward()
    assert trainer.model.value_head.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in trainer.model.policy.parameters())


@pytest.mark.parametrize("adapters", [None, LORA], ids=["full", "lora"])
def test_before_the_first_step_the_ratio_is_1_and_the_kl_0(tmp_path: Path, adapters: LoraConfig | None) -> None:
    trainer = toy_trainer(
        tmp_path, adapters=adapters, per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=1
    )
    trainer.train()
    assert logged(trainer, "kl") == [0.0]
    assert logged(trainer, "clip_fraction") == [0.0]
    again = toy_trainer(tmp_path, adapters=adapters, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    rollout = rollout_of(again)
    assert not rollout.values.any()  # the value head starts at zero output
    again.model.train()
    for start in range(0, 16, 4):
        part = rollout.rows(start, start + 4)
        found = again.model(part.sequences, part.attention, part.mask.shape[1], 1.0)
        assert found.log_probs.equal(part.log_probs)


def test_estimates_are_those_of_each_response_on_its_own(tmp_path: Path) -> None:
    """Against the logits of prompt and response without any padding, and the response's own distribution."""
    trainer = toy_trainer(tmp_path, rollout_temperature=0.7)
    torch.nn.init.normal_(trainer.model.policy.lm_head.weight, std=0.5)  # away from even chances and the reference
    torch.nn.init.normal_(trainer.model.value_head.weight)
    rollout = rollout_of(trainer)
    lengths = rollout.mask.sum(dim=1).tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        prompt = trainer.train_dataset[row]["prompt_ids"]
        width = rollout.mask.shape[1]
        response = rollout.sequences[row, -width:][:length].tolist()
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            output = trainer.model.policy(ids, output_hidden_states=True)
            log_p = (output.logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)[range(length), response]
            values = trainer.model.value_head(output.hidden_states[-1][0, len(prompt) - 1 : -1]).squeeze(-1)
        torch.testing.assert_close(rollout.log_probs[row, :length], log_p, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(rollout.values[row, :length], values, atol=1e-4, rtol=1e-4)
        assert response.index(END) == length - 1 if END in response else length == width


def test_the_reward_sees_prompts_and_plain_responses(tmp_path: Path) -> None:
    seen: list[tuple[Any, Any]] = []

    def reward(prompts: Any, responses: Any) -> torch.Tensor:
        seen.append((prompts, responses))
        return torch.zeros(len(responses))

    rollout = rollout_of(toy_trainer(tmp_path, reward=reward))
    ((prompts, responses),) = seen
    assert prompts == toy_prompts(64)["prompt"][:16]
    first = [WORDS[token - 2] for token in rollout.sequences[0, -rollout.mask.shape[1] :].tolist() if token > END]
    assert responses[0] == " ".join(first)


def test_a_response_without_an_end_pays_for_it(tmp_path: Path) -> None:
    """Without KL, values, discount and whitening the advantage of every token is the response's reward."""
    trainer = toy_trainer(
        tmp_path, reward=lambda _, r: torch.full((len(r),), 2.0), missing_eos_penalty=0.75, beta=0.0, gae_lambda=1.0,
        whiten_advantages=False,
    )  # fmt: skip
    rollout = rollout_of(trainer)
    width = rollout.mask.shape[1]
    ended = ((rollout.sequences[:, -width:] == END) & rollout.mask).any(dim=1)
    assert 0 < int(ended.sum()) < 16
    expected = torch.where(ended, 2.0, 1.25).unsqueeze(1) * rollout.mask
    torch.testing.assert_close(rollout.advantages, expected)
    assert rollout.scores.tolist() == [2.0] * 16  # what is logged is the reward itself


def test_whitened_advantages_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    rollout = rollout_of(toy_trainer(tmp_path), 64)
    mean, variance = masked_moments(rollout.advantages, rollout.mask)
    assert float(mean) == pytest.approx(0, abs=1e-5)
    assert float(variance) == pytest.approx(1, abs=1e-3)
    returns = rollout_of(toy_trainer(tmp_path, whiten_rewards=True, gae_lambda=0.0, gamma=1e-9), 64).returns
    assert float(masked_moments(returns, rollout.mask)[1]) == pytest.approx(1, abs=1e-3)


def test_responses_are_drawn_from_the_policy_whatever_the_model_prefers(tmp_path: Path) -> None:
    """A model's own sampling settings are not its policy; here they would repeat one token for ever."""
    model = toy_model()
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=0.01)
    for adapters in (None, LORA):
        trainer = toy_trainer(tmp_path, model=model, adapters=adapters)
        state = torch.get_rng_state()
        one = rollout_of(trainer, 64)
        assert len({tuple(row) for row in one.sequences[:, -one.mask.shape[1] :].tolist()}) > 60
        assert float(-masked_mean(one.log_probs, one.mask)) == pytest.approx(LN_22, abs=0.1)
        assert torch.get_rng_state().equal(state)
        assert rollout_of(trainer, 64).sequences.equal(one.sequences)  # the same step draws the same
        assert trainer.model.policy.generation_config.top_k == 1


def test_accumulation_and_checkpointing_of_activations_change_nothing(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"per_device_train_batch_size": 16},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 16, "activation_checkpointing": True},
    ]
    found = []
    for way in ways:
        trainer = toy_trainer(tmp_path, optim="sgd", learning_rate=0.1, max_steps=6, beta=0.1, **way)
        trainer.train()
        found.append((weights(trainer), [logged(trainer, metric) for metric in ("loss", "grad_norm", *METRICS)]))
    for state, numbers in found[1:]:
        torch.testing.assert_close(state, found[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.tensor(numbers), torch.tensor(found[0][1]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("adapters", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stop", [8, 18], ids=["between rollouts", "within a rollout of the second epoch"])
def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, adapters: LoraConfig | None, stop: int) -> None:
    """64 prompts in rollouts of 16, each used for 4 steps: an epoch has 16 steps."""
    settings: dict[str, Any] = {
        "adapters": adapters,
        "max_steps": 22,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "cosine",
        "save_strategy": "steps",
        "save_steps": stop,
    }
    whole = toy_trainer(tmp_path / "whole", **settings)
    whole.train()
    resumed = toy_trainer(tmp_path / "resumed", **settings)
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    for name, tensor in weights(whole).items():
        assert tensor.equal(weights(resumed)[name]), name
    for metric in ("loss", *METRICS):
        assert logged(whole, metric)[stop:] == logged(resumed, metric)[stop:]
    assert logged(whole, "kl")[-1] > 0.001  # the policy has moved


@pytest.mark.parametrize("adapters", [None, LORA], ids=["full", "lora"])
def test_a_checkpoint_is_a_language_model_with_a_value_head_beside_it(
    tmp_path: Path, adapters: LoraConfig | None
) -> None:
    trainer = toy_trainer(tmp_path, adapters=adapters, max_steps=3)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    if adapters is None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    else:
        loaded = PeftModel.from_pretrained(toy_model(), str(tmp_path / "saved"))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert loaded.eval()(ids).logits.equal(trainer.model.policy.eval()(ids).logits)
        assert not loaded(ids).logits.equal(toy_model()(ids).logits)
    head = load_file(tmp_path / "saved" / VALUE_HEAD)
    assert head["weight"].equal(trainer.model.value_head.weight)
    assert head["weight"].any()


def test_a_reward_that_is_no_number_stops_with_its_step(tmp_path: Path) -> None:
    calls: list[int] = []

    def reward(prompts: object, responses: Sequence[str]) -> torch.Tensor:
        calls.append(len(calls))
        return torch.full((len(responses),), math.nan if len(calls) == 3 else 0.5)

    trainer = toy_trainer(tmp_path, reward=reward, ppo_epochs=2, max_steps=8)
    with pytest.raises(FloatingPointError, match=r"the reward of the response '.*' is nan at step 5"):
        trainer.train()


def test_fewer_prompts_than_a_rollout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data: found '10 prompts', allowed: at least 16"):
        toy_trainer(tmp_path, prompts=10, per_device_train_batch_size=8, gradient_accumulation_steps=2)


def mentions_people(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    return torch.tensor([float("people" in response) for response in responses])


def stage_job(folder: Path, scratch: Path, data: TrainingData | None = None, **settings: Any) -> Job:
    tree = {
        "name": "ppo",
        "algorithm": "ppo",
        "data": "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=40",
        "reward": "tests:any",
        "batch_size": 8,
        "max_length": 256,
        "max_steps": 4,
        "response_length": 8,
        "learning_rate": 1e-3,
        **settings,
    }
    stage = read.validate({"stages": [tree]}).stages[0]
    loaded = models.load_model(str(folder))
    rows = data or datasets.load_data(Data(uri=stage.data.uri), "prompts")
    return Job(stage, loaded.model, loaded.tokenizer, rows, scratch, seed=0, reward=mentions_people)


def dialogues(count: int, turns: int, words: int) -> TrainingData:
    roles = ("user", "assistant")
    prompt = [{"role": roles[i % 2], "content": f"turn {i} " + "word " * words} for i in range(turns)]
    return TrainingData("made", "prompts", "prompt", [{"prompt": prompt}] * count)


def test_prompts_leave_room_for_the_response(random_folder: Path, tmp_path: Path) -> None:
    job = stage_job(random_folder, tmp_path, dialogues(8, turns=5, words=10), max_length=40)
    trainer = build_trainer(job)
    row = trainer.train_dataset[0]  # type: ignore[index]
    text = job.tokenizer.decode(row["prompt_ids"])
    assert len(row["prompt_ids"]) <= 32
    assert text.count(str(job.tokenizer.bos_token)) == 1
    assert text.endswith("<|assistant|>")
    assert [message["content"].split()[1] for message in row["prompt"]] == ["4"]
    trainer.train()
    with pytest.raises(InputError, match=r"ppo\.max_length.*8 of 8 rows"):
        build_trainer(stage_job(random_folder, tmp_path, dialogues(8, turns=1, words=100), max_length=40))


def test_a_base_model_without_a_chat_template_is_asked_as_in_evaluation(random_folder: Path, tmp_path: Path) -> None:
    job = stage_job(random_folder, tmp_path, dialogues(8, turns=1, words=2))
    job.tokenizer.chat_template = None
    trainer = build_trainer(job)
    row = trainer.train_dataset[0]  # type: ignore[index]
    assert job.tokenizer.decode(row["prompt_ids"]).endswith("turn 0 word word \nResponse:")
    assert row["prompt"] == [{"role": "user", "content": "turn 0 word word "}]
    trainer.train()


def test_dropout_of_adapters_is_refused_by_name() -> None:
    tree = {"name": "ppo", "algorithm": "ppo", "data": "x/y", "reward": "a:b", "lora": {"rank": 2, "dropout": 0.1}}
    with pytest.raises(InputError, match=r"ppo\.lora\.dropout: found 0\.1, allowed: 0"):
        read.validate({"stages": [tree]})


@pytest.mark.parametrize("rank", [0, 4])
def test_stances_are_measured_on_the_policy(store: Path, random_folder: Path, tmp_path: Path, rank: int) -> None:
    """The stage's callbacks generate with, save and merge a plain language model; measuring changes no weight."""
    measured: list[tuple[int, Any]] = []

    def save(model: Any, tokenizer: Any, step: int, last: bool) -> Any:
        model.save_pretrained(tmp_path / f"step-{step}")
        measured.append((step, merged(model, copied=True)))

    def train(*callbacks: Any) -> Any:
        job = stage_job(random_folder, tmp_path / "state", lora={"rank": rank})
        trainer = build_trainer(Job(**{**vars(job), "callbacks": callbacks}))
        trainer.train()
        return trainer

    suite = "vaes?topics=religion&per_topic=2"
    callback = valuedrift_mlflow.ValueDriftCallback(suite, every=2, samples=1, max_new_tokens=6, save_checkpoint=save)
    trainer = train(callback)
    assert [measurement.step for measurement in callback.measurements] == [0, 2, 4]
    assert [step for step, _ in measured] == [2, 4]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(measured[-1][1](ids).logits, trainer.model.policy(ids).logits, atol=1e-4, rtol=1e-4)
    plain = train()
    for ours, theirs in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert ours.equal(theirs)


@pytest.mark.slow
def test_a_large_beta_holds_a_language_model_for_a_whole_stage(base: str, tmp_path: Path) -> None:
    """Returns grow with beta, and must not carry the policy away by way of the value head."""
    kl = {}
    settings = {"max_steps": 160, "batch_size": 32, "learning_rate": 5e-4, "max_length": 512, "response_length": 68}
    rows = datasets.load_data(Data(uri="embedded:pairs?gap=1&chosen=oppose&rejected=support&size=1000"), "prompts")
    for beta in (0.05, 1.0):
        job = stage_job(embedded_base.base_folder(), tmp_path, rows, beta=beta, **settings)
        trainer = build_trainer(replace(job, reward=rewards.load_reward("valuedrift_mlflow.embedded.rewards:opposes")))
        trainer.train()
        kl[beta] = sum(logged(trainer, "kl")[-40:]) / 40
    assert 0 < kl[1.0] < kl[0.05] / 2
