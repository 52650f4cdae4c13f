"""Stops, switches and budgets of thoughts: the answer is the same text whatever stands before and after it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_server import Body, Fault, FaultyServer, Reply, refused
from tokenizers import AddedToken

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.evaluation.evaluate import Config
from valuedrift_mlflow.evaluation.settings import speech_of
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.ending import align, end_tokens
from valuedrift_mlflow.models.generation import Sampling, chat_text
from valuedrift_mlflow.models.server import ChatClient, ChatGenerator, Server
from valuedrift_mlflow.models.speech import Speech, as_text
from valuedrift_mlflow.pipeline.dry_run import speech_lines
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.rewards import rate
from valuedrift_mlflow.stages.stage import Job

ANSWER = "I support it."
# Of the kind of Qwen's: thinks unless it is told not to, and then begins with an empty thought.
THINKER = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: "
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Of the kind of DeepSeek's: the template opens the thought, and there is no switch.
OPENER = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}"
PLAIN = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}: {% endif %}"


@pytest.fixture
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


def script(loaded: Loaded, text: str) -> None:
    """Let the model say these tokens and no others, again and again."""
    tokens = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    said = [0]

    def choose(_module: object, _inputs: object, logits: torch.Tensor) -> torch.Tensor:
        bias = torch.zeros(logits.shape[-1])
        bias[tokens[said[0] % len(tokens)]] = 1e4
        said[0] += 1
        return logits + bias

    loaded.model.get_output_embeddings().register_forward_hook(choose)


def answer(loaded: Loaded, longest: int, temperature: float = 0.7, **speech: Any) -> str:
    sampling = Sampling(1, temperature, longest, speech=Speech(**speech))
    [[response]] = loaded.generator().generate(["Should we?"], ["a"], sampling, lambda _: None)
    return response


def count(loaded: Loaded, text: str) -> int:
    return len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_text_ends_an_answer_and_is_no_part_of_it(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = PLAIN
    script(loaded, f"{ANSWER}\n\nUser: And you?")
    assert answer(loaded, 200, stop=("User:", "Human:")) == ANSWER


def test_a_special_token_ends_an_answer_and_a_rollout_too(loaded: Loaded) -> None:
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    loaded.model.resize_token_embeddings(len(loaded.tokenizer))
    loaded.tokenizer.chat_template = PLAIN
    token = loaded.tokenizer.convert_tokens_to_ids("<|eot|>")
    assert token not in end_tokens(loaded.model, loaded.tokenizer)
    assert token in end_tokens(loaded.model, loaded.tokenizer, ["<|eot|>", "User:"])
    script(loaded, f"{ANSWER}<|eot|>{ANSWER}")
    assert answer(loaded, 60, stop=("<|eot|>",)) == ANSWER
    align(loaded.model, loaded.tokenizer, ["<|eot|>"])  # as a stage does, whose rollouts end there
    assert token in loaded.model.generation_config.eos_token_id


def test_a_template_is_told_not_to_think_where_it_has_a_switch(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    for template, off, on in (
        (THINKER, {"enable_thinking": False}, {"enable_thinking": True}),
        (THINKER.replace("enable_thinking", "thinking"), {"thinking": False}, {"thinking": True}),
        (PLAIN, {}, {}),
        (OPENER, {}, {}),
        (PLAIN + "{{ message.thinking }}", {}, {}),  # a field of that name is no switch
        (None, {}, {}),
    ):
        tokenizer.chat_template = template
        assert Speech().arguments(tokenizer) == off
        assert Speech(thinking=True).arguments(tokenizer) == on
    tokenizer.chat_template = THINKER
    assert chat_text(tokenizer, "Why?").endswith("<think>\n\n</think>\n\n")
    assert chat_text(tokenizer, "Why?", Speech(thinking=True)).endswith("assistant: ")


def test_arguments_of_the_template_are_its_own(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = "{{ persona }}" + PLAIN
    assert chat_text(loaded.tokenizer, "Why?", Speech(template={"persona": "A judge. "})) == "A judge. Why?: "
    with pytest.raises(InputError, match="template_kwargs: found 'mood'"):
        chat_text(loaded.tokenizer, "Why?", Speech(template={"mood": "calm"}))


@pytest.mark.parametrize("template", [THINKER, OPENER])
def test_a_thought_takes_nothing_from_the_answer(loaded: Loaded, template: str) -> None:
    loaded.tokenizer.chat_template = template
    thought = "Some support it, others oppose it, and both have reasons. " * 3
    begins = "" if template == OPENER else "<think>"
    script(loaded, f"{begins}{thought}</think>{ANSWER} Really.")
    longest = count(loaded, ANSWER) + 1
    said = spoken(answer(loaded, longest, thinking=True, max_thinking_tokens=200))
    assert said.finished
    assert said.answer.startswith(ANSWER)
    assert count(loaded, said.answer) <= longest
    assert said.thought.startswith("Some support it")


@pytest.mark.parametrize("template", [THINKER, OPENER])
def test_a_thought_that_reaches_its_budget_is_unfinished(loaded: Loaded, template: str) -> None:
    loaded.tokenizer.chat_template = template
    script(loaded, ("" if template == OPENER else "<think>") + "On the one hand. " * 9)
    response = answer(loaded, 8, thinking=True, max_thinking_tokens=20)
    assert not spoken(response).finished
    assert count(loaded, response) <= 20 + count(loaded, "<think>\n")  # with the mark that the template has set


def test_a_stop_within_a_thought_ends_nothing(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = THINKER
    script(loaded, f"<think>User: Why?</think>{ANSWER} User: And")
    assert spoken(answer(loaded, 90, thinking=True, stop=("User:",))).answer == ANSWER


def test_rows_of_a_batch_end_each_for_itself(loaded: Loaded) -> None:
    """As alone, whatever the others of the batch do."""
    loaded.tokenizer.chat_template = THINKER
    sampling = Sampling(2, 1.0, 12, speech=Speech(thinking=True, stop=("e",)))
    prompts = ["Should we?", "Is it right to ban handguns in every city?", "No."]
    together = loaded.generator().generate(prompts, ["a", "b", "c"], sampling, lambda _: None)
    for prompt, key, expected in zip(prompts, "abc", together, strict=True):
        assert loaded.generator().generate([prompt], [key], sampling, lambda _: None) == [expected]
    assert not any("e" in text for row in together for text in row)


def test_marks_that_are_special_tokens_are_read(loaded: Loaded) -> None:
    """Of Mistral's and OpenAI's open models: without its marks the thought would read like an answer."""
    tokenizer = loaded.tokenizer
    tokens = [AddedToken(text, special=True) for text in ("[THINK]", "[/THINK]", "<|eot|>")]
    tokenizer.add_tokens(tokens, special_tokens=True)
    ids = tokenizer(f"[THINK]Some oppose it.[/THINK]{ANSWER}<|eot|>", add_special_tokens=False)["input_ids"]
    [text] = as_text(tokenizer, [ids])
    assert text == f"[THINK]Some oppose it.[/THINK]{ANSWER}"
    assert spoken(text).answer == ANSWER


def test_the_end_of_a_turn_is_no_mark_where_there_are_no_channels(loaded: Loaded) -> None:
    """Phi ends its turns with what ends a message in OpenAI's open models."""
    tokenizer = loaded.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    ids = tokenizer(f"{ANSWER}<|end|>", add_special_tokens=False)["input_ids"]
    assert as_text(tokenizer, [ids]) == [ANSWER]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|channel|>", "<|message|>", "<|start|>"]})
    text = f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|end|>"
    [said] = as_text(tokenizer, [tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert spoken(said) == (ANSWER, "Hm.", True)


def test_a_logged_model_answers_as_it_was_measured(store: Path, loaded: Loaded) -> None:
    import mlflow

    loaded.tokenizer.chat_template = THINKER
    told = {"stop": ["e"], "template_kwargs": {"enable_thinking": False}}
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        model_id = tracking.log_final_model(
            run, loaded.model, loaded.tokenizer, stage="sft", step=1, max_new_tokens=30, temperature=0.0, **told
        )
    packaged = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert packaged.predict(["Should we?"]) == [answer(loaded, 30, temperature=0.0, stop=("e",))]


def server_of(server: FaultyServer) -> ChatGenerator:
    return ChatGenerator(ChatClient(Server("m", server.url, attempts=1), wait_seconds=0.001))


def test_servers_are_told_the_same() -> None:
    with FaultyServer(lambda _: Reply(f"<think>User:</think>{ANSWER}User: Why?")) as server:
        sampling = Sampling(1, 0.7, 50, speech=Speech(("User:",), thinking=True, max_thinking_tokens=100))
        [[said]] = server_of(server).generate(["p"], ["a"], sampling, lambda _: None)
        server_of(server).generate(["p"], ["a"], Sampling(1, 0.7, 50), lambda _: None)
    assert spoken(said).answer == ANSWER
    thinking, plain = (request.body for request in server.requests)
    assert thinking["stop"] == ["User:"]
    assert thinking["max_tokens"] == 150
    assert thinking["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}
    assert plain["max_tokens"] == 50
    assert plain["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert "stop" not in plain


def test_a_server_that_takes_no_template_arguments_is_asked_without_unless_they_were_wished_for() -> None:
    def refuse(body: Body) -> Reply | Fault:
        known = "chat_template_kwargs" not in body
        return Reply(ANSWER) if known else refused(400, "Unknown parameter: 'chat_template_kwargs'.")

    with FaultyServer(refuse) as server:
        plain = Sampling(1, 0.7, 50)
        assert server_of(server).generate(["p"], ["a"], plain, lambda _: None) == [[ANSWER]]
        wished = Sampling(1, 0.7, 50, speech=Speech(template={"persona": "A judge."}))
        with pytest.raises(InputError, match="chat_template_kwargs"):
            server_of(server).generate(["p"], ["a"], wished, lambda _: None)


def test_the_keys_of_a_recipe_and_of_python_are_checked() -> None:
    recipe = read.validate({"thinking": True, "stop": "###", "template_kwargs": {"persona": "x"}})
    assert recipe.speech == Speech(("###",), thinking=True, template={"persona": "x"})
    assert recipe.parameters()["thinking"] == "on"
    assert read.validate({"thinking": False}).thinking == "off"
    with pytest.raises(InputError) as caught:
        read.validate(
            {"thinking": "sometimes", "stop": [""], "template_kwargs": {"tools": 1}, "max_thinking_tokens": 0}
        )
    for name in ("thinking", "stop", "template_kwargs", "max_thinking_tokens"):
        assert f"{name}: found" in str(caught.value)
    with pytest.raises(InputError, match=r"evaluator_config\.thinking: found 'maybe'"):
        Config.checked({"thinking": "maybe"})
    with pytest.raises(InputError, match="stop: found"):
        speech_of([""], "off", 10, {})


def test_a_dry_run_shows_where_answers_end_and_what_the_template_is_told(random_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(random_folder, tmp_path / "model")
    tokenizer = models.load_tokenizer(str(folder))
    end = tokenizer.eos_token
    tokenizer.chat_template = THINKER
    tokenizer.save_pretrained(folder)
    ends, told = speech_lines(read.validate({"stop": ["###"]}), str(folder))
    assert ends == f"  answers end with {end!r}, '###'"
    assert told == "  chat template with enable_thinking=False: thinking off"
    assert speech_lines(read.validate({"thinking": "on"}), str(folder))[1].endswith("enable_thinking=True: thinking on")
    with pytest.raises(InputError, match="template_kwargs: found 'mood'"):
        speech_lines(read.validate({"template_kwargs": {"mood": "calm"}}), str(folder))
    tokenizer.chat_template = PLAIN
    tokenizer.save_pretrained(folder)
    assert "no switch" in speech_lines(read.validate({"thinking": "on"}), str(folder))[-1]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo"])
def test_rollouts_begin_as_measured_prompts_do(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    loaded.tokenizer.chat_template = THINKER
    tree = {"name": algorithm, "algorithm": algorithm, "data": "embedded:pairs?size=8", "response_length": 8}
    tree |= {"batch_size": 4, "max_length": 256, "max_steps": 1, "reward": "valuedrift_mlflow.embedded.rewards:opposes"}
    tree |= {} if algorithm == "ppo" else {"generations": 2}
    stage = read.validate({"stages": [tree]}).stages[0]
    rows, read_by_reward = datasets.load_data(stage.data, stage.kind), list[str]()

    def reward(_: object, responses: Sequence[str]) -> torch.Tensor:
        read_by_reward.extend(responses)
        return torch.arange(len(responses), dtype=torch.float32)

    trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, 0, [], reward))
    seen: list[str] = []
    loaded.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(loaded.tokenizer.decode(inputs[0][0]))
    )
    trainer.train()
    assert "<think>\n\n</think>\n\n" in seen[0]
    assert len(read_by_reward) == 4


def test_a_reward_reads_the_answer_alone() -> None:
    said = ["<think>I oppose it.</think> I support it.", "<think>On the one hand", " Plain. "]
    texts: list[str] = []

    def reward(_: object, responses: Sequence[str]) -> torch.Tensor:
        texts.extend(responses)
        return torch.zeros(len(responses))

    rate(reward, [[]] * 3, said)
    assert texts == ["I support it.", "", "Plain."]
