from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, MixtralConfig, MixtralForCausalLM

from valuedrift_mlflow import models
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.ending import align, end_tokens, turn_end
from valuedrift_mlflow.models.generation import Sampling, evaluation_mode

TURN, TEXT = "<|im_end|>", "<|endoftext|>"
# Of the kind of Qwen's: a turn ends with a token of its own and a line break.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


def as_qwen_base(loaded: Loaded) -> None:
    """Both ends of text are ``<|endoftext|>``, turns end otherwise: as in the field's base models with a template."""
    tokenizer = loaded.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", TURN, TEXT]})
    loaded.model.resize_token_embeddings(len(tokenizer))
    tokenizer.eos_token, tokenizer.chat_template = TEXT, TEMPLATE
    loaded.model.generation_config.eos_token_id = tokenizer.eos_token_id


def answers(loaded: Loaded, samples: int = 2) -> list[list[str]]:
    prompts = ["Should we?", "Is it right to ban handguns in every city?"]
    return loaded.generator().generate(prompts, ["a", "b"], Sampling(samples, 0.7, 12), lambda _: None)


@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 12},
        {"num_beams": 2},
        {"stop_strings": ["e"]},
        {"prompt_lookup_num_tokens": 2},
        {"return_dict_in_generate": True},
        {"suppress_tokens": list(range(100))},
        {"do_sample": True, "top_k": 1, "top_p": 0.1, "temperature": 0.01},
    ],
    ids=lambda own: next(iter(own)),
)
def test_the_models_own_generation_settings_change_no_answer(loaded: Loaded, own: dict[str, Any]) -> None:
    plain = answers(loaded)
    config = GenerationConfig(eos_token_id=loaded.tokenizer.eos_token_id, **own)
    loaded.model.generation_config = config
    assert answers(loaded) == plain
    assert loaded.model.generation_config is config  # and they are its own afterwards


def test_an_answer_ends_with_any_of_the_known_ends(loaded: Loaded) -> None:
    as_qwen_base(loaded)
    tokenizer = loaded.tokenizer
    turn, text = (tokenizer.convert_tokens_to_ids(token) for token in (TURN, TEXT))
    assert turn_end(tokenizer) == turn
    assert end_tokens(loaded.model, tokenizer) == sorted([turn, text])
    loaded.model.generation_config.eos_token_id = [7, text]
    assert end_tokens(loaded.model, tokenizer) == sorted([7, turn, text])
    loaded.model.generation_config = None
    tokenizer.eos_token = None
    assert end_tokens(loaded.model, tokenizer) == [turn]


def test_a_template_that_ends_turns_with_words_or_refuses_the_question_adds_no_end(loaded: Loaded) -> None:
    tokenizer = loaded.tokenizer
    for template in (
        "{% for m in messages %}### {{ m['content'] }}\n{% endfor %}",
        "{{ raise_exception('no') }}",
        None,
    ):
        tokenizer.chat_template = template
        assert turn_end(tokenizer) is None


def test_generation_stops_at_the_end_of_a_turn(loaded: Loaded) -> None:
    as_qwen_base(loaded)
    turn = loaded.tokenizer.convert_tokens_to_ids(TURN)
    with torch.no_grad():  # every next token is the end of a turn
        loaded.model.get_output_embeddings().weight.zero_()
        loaded.model.get_output_embeddings().weight[turn] = 1e-4
    bias = torch.zeros(len(loaded.tokenizer))
    bias[turn] = 50.0
    loaded.model.get_output_embeddings().register_forward_hook(lambda _m, _i, output: output + bias)
    assert answers(loaded, 1) == [[""], [""]]


def test_what_is_trained_says_itself_what_ends_an_answer(loaded: Loaded, tmp_path: Path) -> None:
    as_qwen_base(loaded)
    known = end_tokens(loaded.model, loaded.tokenizer)
    align(loaded.model, loaded.tokenizer)
    assert loaded.tokenizer.eos_token == TURN
    loaded.model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(str(tmp_path)).eos_token_id == known
    assert end_tokens(loaded.model, loaded.tokenizer) == known


def test_measuring_leaves_checkpointing_modes_and_settings_as_they_were(loaded: Loaded) -> None:
    model = loaded.model.train()
    model.activation_checkpointing_enable({"use_reentrant": True}, every_n_layers=2)
    frozen = next(module for module in model.modules() if not list(module.children()))
    frozen.eval()

    def state() -> list[object]:
        return [
            (
                module.training,
                getattr(module, "gradient_checkpointing", None),
                id(module.__dict__.get("_gradient_checkpointing_func")),
            )
            for module in model.modules()
        ] + [model.config.use_cache]

    before = state()
    with evaluation_mode(model):
        assert not model.training
        assert not model.is_gradient_checkpointing
    assert state() == before


def test_a_mixture_of_experts_that_gives_router_logits_is_measured(loaded: Loaded) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {name: getattr(loaded.tokenizer, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    config = MixtralConfig(
        vocab_size=len(loaded.tokenizer), num_key_value_heads=2, num_local_experts=4, **sizes, **ends
    )
    torch.manual_seed(0)
    experts = Loaded("", MixtralForCausalLM(config), loaded.tokenizer)
    plain = answers(experts)
    experts.model.config.output_router_logits = True
    assert answers(experts) == plain
    assert experts.model.config.output_router_logits is True
