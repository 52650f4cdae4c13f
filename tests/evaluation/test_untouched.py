"""What a measurement in somebody's own script touches is as it was afterwards, and any adapter can be measured."""

import copy
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

import valuedrift_mlflow
from valuedrift_mlflow import models, suite
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.judges.likelihood import LikelihoodJudge
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator, encode, evaluation_mode
from valuedrift_mlflow.models.reference import reference_of
from valuedrift_mlflow.models.start import reference_kl, start_of

SUITE = "vaes?topics=religion&per_topic=2"
SETTINGS: dict[str, Any] = {"suite": SUITE, "every": 1, "samples": 1, "max_new_tokens": 4}
LAYERS = ["q_proj", "v_proj"]
ADAPTERS: dict[str, Any] = {
    "lora": LoraConfig(r=4, target_modules=LAYERS, task_type="CAUSAL_LM"),
    "vera": VeraConfig(r=4, target_modules=["o_proj"], task_type="CAUSAL_LM"),
    "ia3": IA3Config(target_modules=[*LAYERS, "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    "prompt": PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "p-tuning": PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8, task_type="CAUSAL_LM"),
    "prefix": PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}


def trainer_of(folder: Path, scratch: Path, adapter: str | None = None, **settings: Any) -> SFTTrainer:
    loaded = models.load_model(str(folder))
    model: Any = loaded.model if adapter is None else get_peft_model(loaded.model, copy.deepcopy(ADAPTERS[adapter]))
    rows = [{"messages": row["messages"]} for row in corpus.rows("embedded:sft?size=20")]
    arguments = {"output_dir": str(scratch), "max_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True}
    arguments |= {"bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, **settings}
    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
    )


def told(value: object) -> object:
    """A value as something that can be compared: tensors by their content, objects by what they are."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.device, value.detach().double().sum().item(), value.requires_grad)
    if isinstance(value, Mapping):
        return {str(key): told(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [told(each) for each in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else (type(value), id(value))


def state(trainer: Any) -> dict[str, object]:
    """All of a trainer that a measurement could leave otherwise."""
    model, tokenizer = trainer.model, trainer.processing_class
    rest = ("_parameters", "_buffers", "_modules")
    return {
        "python": random.getstate(),
        "numpy": told(
            [part if isinstance(part, str | int | float) else part.tolist() for part in np.random.get_state()]
        ),
        "torch": torch.random.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "modules": {
            name: {key: told(value) for key, value in vars(module).items() if key not in rest}
            for name, module in model.named_modules()
        },
        "parameters": {name: told(weight) for name, weight in model.named_parameters()},
        "gradients": {name: told(weight.grad) for name, weight in model.named_parameters()},
        "buffers": {name: told(buffer) for name, buffer in model.named_buffers()},
        "config": model.config.to_dict(),
        "generation": None if model.generation_config is None else told(model.generation_config.to_dict()),
        "tokenizer": {key: told(value) for key, value in vars(tokenizer).items()},
        "special": told(tokenizer.special_tokens_map),
        "template": tokenizer.chat_template,
        "padding": (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.backend_tokenizer.padding),
        "truncation": tokenizer.backend_tokenizer.truncation,
        "adapters": {name: told(vars(config)) for name, config in getattr(model, "peft_config", {}).items()},
        "active": told(getattr(model, "active_adapters", None) if hasattr(model, "peft_config") else None),
        "trainer": {key: told(value) for key, value in vars(trainer).items()},
        "arguments": told(vars(trainer.args)),
        "control": vars(copy.copy(trainer.control)),
        "progress": told(vars(trainer.state)),
        "accelerator": told(vars(trainer.accelerator)),
        "optimizer": told(trainer.optimizer.state_dict()),
        "schedule": told(trainer.lr_scheduler.state_dict()),
    }


class Watch(TrainerCallback):
    """Stands before or after the measuring callback, and keeps the state there."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.states: list[dict[str, object]] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.states.append(state(self.trainer))


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [
        (None, {}),
        ("lora", {}),
        ("prompt", {}),
        (None, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    ],
    ids=["full", "lora", "prompt tuning", "checkpointing"],
)
def test_a_measurement_leaves_everything_as_it_was(
    store: Path, random_folder: Path, adapter: str | None, settings: dict[str, Any]
) -> None:
    trainer = trainer_of(random_folder, store / "out", adapter, **settings)
    next(module for module in trainer.model.modules() if not list(module.children())).eval()  # frozen in a mode
    before, after = Watch(), Watch()
    for callback in (before, valuedrift_mlflow.ValueDriftCallback(**SETTINGS), after):
        if isinstance(callback, Watch):
            callback.trainer = trainer
        trainer.add_callback(callback)
    trainer.train()
    assert len(before.states) == len(after.states) == 2
    for one, other in zip(before.states, after.states, strict=True):
        for key, value in one.items():
            assert other[key] == value, key


# TRL itself cannot train a prefix: it reads without the cache that the prefix lies in.
@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name not in ("lora", "prefix")])
def test_any_adapter_is_measured(store: Path, random_folder: Path, adapter: str) -> None:
    """Also those that have no weights in layers; at the start the distance from the reference is none, later some."""
    import mlflow
    from mlflow import MlflowClient

    trainer = trainer_of(random_folder, store / "out", adapter, learning_rate=0.1)
    callback = valuedrift_mlflow.ValueDriftCallback(**SETTINGS)
    trainer.add_callback(callback)
    trainer.train()
    assert [measurement.step for measurement in callback.measurements] == [0, 1, 2]
    run = mlflow.last_active_run()
    assert run is not None
    distances = [metric.value for metric in MlflowClient().get_metric_history(run.info.run_id, "reference_kl")]
    assert distances[0] == pytest.approx(0, abs=1e-5)
    assert distances[-1] > 1e-6


@pytest.mark.parametrize("adapter", ["prompt", "prefix", "ia3"])
def test_the_reference_of_an_adapter_is_the_start_with_it(random_folder: Path, adapter: str) -> None:
    """Not the model below: a prompt of random vectors changes what is said from the first step."""
    model = get_peft_model(models.load_model(str(random_folder)).model, copy.deepcopy(ADAPTERS[adapter])).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        reference = reference_of(model)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
        with reference() as start:
            torch.testing.assert_close(start(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, before)


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_an_adapter_answers_chooses_and_has_no_distance_from_itself(random_folder: Path, adapter: str) -> None:
    loaded = models.load_model(str(random_folder))
    model: Any = get_peft_model(loaded.model, copy.deepcopy(ADAPTERS[adapter])).eval()
    items, prompts = suite.load(SUITE).items, ["Why?", "Should we ban it?"]
    sampling = Sampling(1, 0.7, 6)
    together = TransformersGenerator(model, loaded.tokenizer).generate(prompts, prompts, sampling, lambda _: None)
    for prompt, said in zip(prompts, together, strict=True):
        assert TransformersGenerator(model, loaded.tokenizer).generate([prompt], [prompt], sampling, int) == [said]
    ids = encode(loaded.tokenizer, prompts)
    said_ids = [loaded.tokenizer(said, add_special_tokens=False)["input_ids"] for (said,) in together]
    exchanges = list(zip(ids, said_ids, strict=True))
    with evaluation_mode(model):
        assert reference_kl(model, start_of(model, exchanges)) == pytest.approx(0, abs=1e-6)
    judge = LikelihoodJudge()
    verdicts = judge.choose(model, loaded.tokenizer, items, batch_size=999)
    alone = [judge.choose(model, loaded.tokenizer, [item], batch_size=1)[0] for item in items]
    for one, other in zip(verdicts, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
