import json
import math
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, LlamaForSequenceClassification

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.stages import rewards

QUESTION = [{"role": "user", "content": "Is rent control fair?"}]
DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Is it fair?"},
]
FUNCTIONS = """
import math

def shorter(prompts, responses):
    return [len(prompt) - len(response) for prompt, response in zip(prompts, responses)]

def too_few(prompts, responses):
    return [1.0]

def unsure(prompts, responses):
    return [math.nan if "?" in response else 1.0 for response in responses]

number = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's beside the recipe: in the working folder, not installed."""
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS)
    (tmp_path / "broken_rewards.py").write_text("import no_such_library\n\ndef f(prompts, responses): ...\n")
    monkeypatch.chdir(tmp_path)
    return "my_rewards"


@pytest.fixture(scope="session")
def classifier_folder(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as transformers saves it: random weights, one label."""
    folder = tmp_path_factory.mktemp("reward") / "one"
    tokenizer = AutoTokenizer.from_pretrained(random_folder)
    torch.manual_seed(0)
    config = models.load_model(str(random_folder)).model.config
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_python_function_gets_texts(functions: str) -> None:
    rewards.check_reward(f"{functions}:shorter")
    reward = rewards.load_reward(f"{functions}:shorter")
    found = reward([QUESTION, DIALOGUE], ["No.", "It is."])
    assert found.tolist() == [len("Is rent control fair?") - 3, len("Be brief.\nHello.\nHello!\nIs it fair?") - 6]
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("no_such_module:f", r"reward: found 'no_such_module:f'.*No module named 'no_such_module'"),
        ("broken_rewards:f", "No module named 'no_such_library'"),
        ("broken_rewards:g", "allowed: a function that broken_rewards has"),
        ("my_rewards:longer", "allowed: a function that my_rewards has"),
        ("my_rewards:number", "allowed: a function that my_rewards has"),
        ("./no_such_folder", "reward: found './no_such_folder'"),
    ],
)
def test_a_reward_that_is_not_there_is_refused_before_any_computing(functions: str, uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rewards.check_reward(uri)


def test_what_a_function_returns_is_checked(functions: str) -> None:
    with pytest.raises(ValueError, match=r"the reward has shape \(1,\) for 2 responses"):
        rewards.load_reward(f"{functions}:too_few")([QUESTION, QUESTION], ["a", "b"])
    with pytest.raises(FloatingPointError, match="the reward of the response 'Why\\?' is nan"):
        rewards.load_reward(f"{functions}:unsure")([QUESTION, QUESTION], ["No.", "Why?"])
    with pytest.raises(FloatingPointError, match="the reward of the response 'b' is inf"):
        rewards.rate(lambda _, r: torch.tensor([0, math.inf]), [QUESTION, QUESTION], ["a", "b"])


def score_by_hand(folder: Path, text: str, special: bool) -> float:
    """The head's output at the text's last token, from the hidden states."""
    model: Any = LlamaForSequenceClassification.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(model.score(model.model(ids).last_hidden_state[0, -1]))


def test_a_reward_model_rates_prompt_and_response_at_their_last_token(classifier_folder: Path) -> None:
    rewards.check_reward(str(classifier_folder))
    reward = rewards.load_reward(str(classifier_folder))
    found = reward([QUESTION, DIALOGUE], ["No, it harms those who look for a home.", "Yes."])
    one = "<|begin|><|user|>Is rent control fair?<|assistant|>No, it harms those who look for a home.<|end|>"
    two = "<|begin|><|system|>Be brief.<|user|>Hello.<|assistant|>Hello!<|end|>"
    two += "<|user|>Is it fair?<|assistant|>Yes.<|end|>"
    expected = [score_by_hand(classifier_folder, text, special=False) for text in (one, two)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_batches_give_the_same_ratings(classifier_folder: Path) -> None:
    reward: Any = rewards.load_reward(str(classifier_folder))
    responses = ["yes " * count for count in range(1, 8)]
    together = reward([QUESTION] * 7, responses)
    reward.batch_size = 2
    torch.testing.assert_close(reward([QUESTION] * 7, responses), together, atol=1e-5, rtol=1e-5)


def test_a_model_with_learned_positions_rates_a_text_alike_in_any_batch(random_folder: Path, tmp_path: Path) -> None:
    """GPT-2's kind: absolute positions, no pad token, and a tokenizer that pads on the left."""
    tokenizer = AutoTokenizer.from_pretrained(random_folder, padding_side="left")
    tokenizer.pad_token = None
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=len(tokenizer), num_labels=1, **sizes)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward: Any = rewards.load_reward(str(tmp_path))
    responses = ["No.", "Yes, for it keeps homes within reach of those who work here.", "Perhaps so, as it is " * 9]
    together = reward([QUESTION] * 3, responses)
    alone = torch.cat([reward([QUESTION], [response]) for response in responses])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert together.std() > 0.1


def test_without_a_chat_template_the_text_is_that_of_evaluation(classifier_folder: Path) -> None:
    reward: Any = rewards.load_reward(str(classifier_folder))
    reward.tokenizer.chat_template = None
    found = reward([QUESTION], ["No."])
    text = "Is rent control fair?\nResponse: No.<|end|>"
    assert float(found) == pytest.approx(score_by_hand(classifier_folder, text, special=True), abs=1e-5)


def test_other_models_are_refused(random_folder: Path, classifier_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"LlamaForCausalLM.*allowed: a sequence-classification model with one label"):
        rewards.check_reward(str(random_folder))
    config = LlamaForSequenceClassification.from_pretrained(classifier_folder).config
    config.num_labels = 3
    config.save_pretrained(tmp_path / "three")
    with pytest.raises(InputError, match="3 labels"):
        rewards.check_reward(str(tmp_path / "three"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    with pytest.raises(InputError, match="fold the adapters into the model first"):
        rewards.check_reward(str(tmp_path / "adapter"))


def test_a_logged_checkpoint_is_a_reward(store: Path, classifier_folder: Path) -> None:
    with mlflow.start_run() as run:
        model_id = tracking.log_checkpoint(tracking.OpenRun(run.info.run_id), classifier_folder, stage="reward", step=5)
    uri = f"models:/{model_id}"
    rewards.check_reward(uri)
    found = rewards.load_reward(uri)([QUESTION], ["No."])
    assert found.equal(rewards.load_reward(str(classifier_folder))([QUESTION], ["No."]))
    with pytest.raises(InputError, match="reward: found 'models:/m-unknown'"):
        rewards.check_reward("models:/m-unknown")
