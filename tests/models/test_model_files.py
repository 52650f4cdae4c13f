"""What is told of a model before its weights are loaded, wherever it lies."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from peft import LoraConfig, get_peft_model
from transformers import TrainerControl, TrainerState, TrainingArguments

import valuedrift_mlflow
from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.evaluation.callback import ValueDriftCallback
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.models.files import check_template, config_of, tokenizer_of
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.pipeline import dry_run
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read

ANSWERING = {"max_new_tokens": 4, "temperature": 0.0}
PERSONA = (
    "{{ persona }}{% for message in messages %}{{ message['content'] }}{% generation %}{{ eos_token }}"
    "{% endgeneration %}{% endfor %}{% if add_generation_prompt and enable_thinking is not defined %}: {% endif %}"
)


@pytest.fixture
def logged(random_folder: Path, store: Path) -> Iterator[dict[str, str]]:
    """URIs of one model, by how it came to be in the tracking store."""
    loaded: Loaded = models.load_model(str(random_folder))
    split = shutil.copytree(random_folder, store / "step-000003")
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        last = tracking.log_final_model(run, loaded.model, loaded.tokenizer, stage="sft", step=1, **ANSWERING)
        checkpoint = tracking.log_checkpoint(run, random_folder, stage="sft", step=2)
        whole = tracking.log_final_folder(run, split, stage="sft", step=3, **ANSWERING)
        parts: dict[str, Any] = {"model": loaded.model, "tokenizer": loaded.tokenizer}
        flavor = mlflow.transformers.log_model(parts, name="flavor", task="text-generation", pip_requirements=[])
        loaded.model.name_or_path = loaded.model.config.name_or_path = f"models:/{last}"
        adapted = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        adapted.save_pretrained(store / "adapters")
        adapters = tracking.log_checkpoint(run, store / "adapters", stage="dpo", step=2)
    mlflow.register_model(f"models:/{last}", "assistant")
    MlflowClient().set_registered_model_alias("assistant", "best", 1)
    yield {
        "last": f"models:/{last}",
        "checkpoint": f"models:/{checkpoint}",
        "split": f"models:/{whole}",
        "flavor": f"models:/{flavor.model_id}",
        "adapters": f"models:/{adapters}",
        "version": "models:/assistant/1",
        "alias": "models:/assistant@best",
        "artifacts": f"runs:/{run.run_id}/checkpoints/step-000002",
        "named": f"runs:/{run.run_id}/sft-step-000001",
    }


def test_a_dry_run_knows_every_model_of_the_store(
    logged: dict[str, str], random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it knows the folder that they came from; no weights are read."""

    def planned(uri: str) -> tuple[object, ...]:
        stage = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=6", "batch_size": 2, "epochs": 2}
        wanted = read.validate({"base": {"model": uri}, "stages": [stage], "suite": "vaes?per_topic=1"})
        plan = dry_run.dry_run(wanted, "test")
        [entry] = plan.stages
        assert plan.model is not None
        spoken = dry_run.speech_lines(wanted, uri)
        return plan.model.parameters, entry.steps, entry.tokens, entry.tokens_from, entry.peak, *spoken

    monkeypatch.setattr("safetensors.safe_open", None)  # who reads weights fails
    expected = planned(str(random_folder))
    assert expected[1] == 6
    for kind, uri in logged.items():
        assert planned(uri) == expected, kind


def test_what_is_not_there_is_not_known(store: Path) -> None:
    with mlflow.start_run() as active:
        mlflow.log_text("hello", "notes/hello.txt")
    uri = f"runs:/{active.info.run_id}/notes"
    assert config_of(uri) is None
    assert tokenizer_of(uri) is None


# Arguments of the chat template --------------------------------------------------------------------------------------


@pytest.fixture
def persona(random_folder: Path, tmp_path: Path) -> str:
    folder = shutil.copytree(random_folder, tmp_path / "persona")
    tokenizer = models.load_tokenizer(str(folder))
    tokenizer.chat_template = PERSONA
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_names_that_a_template_reads_are_known_also_with_generation_marks(persona: str) -> None:
    check_template(persona, Speech(template={"persona": "A judge. "}))
    for name in ("mood", "content", "message", "generation"):  # the others are words of the template, not its arguments
        with pytest.raises(InputError, match=rf"template_kwargs: found '{name}', .*reads: enable_thinking, persona"):
            check_template(persona, Speech(template={name: "calm"}))
    with pytest.raises(InputError, match="embedded:base, whose chat template reads no arguments"):
        check_template("embedded:base", Speech(template={"persona": "x"}))


def test_an_evaluation_refuses_a_wrong_name_before_the_baseline_is_asked(
    persona: str, random_folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("valuedrift_mlflow.models.load_generator", never)
    for model, baseline in ((persona, str(random_folder)), (str(random_folder), persona)):
        with pytest.raises(InputError, match=r"template_kwargs: found 'persona'.*it reads none"):
            valuedrift_mlflow.evaluate(model, baseline, judge="lexical", template_kwargs={"persona": "x"})
    assert mlflow.search_runs(output_format="list") == []


def test_a_recipe_with_a_wrong_name_is_refused_with_its_other_problems(persona: str) -> None:
    stage = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=4", "trainer": {"optimizer": "x"}}
    wanted = read.validate({"base": {"model": persona}, "stages": [stage], "template_kwargs": {"mood": "calm"}})
    with pytest.raises(InputError) as caught:
        prepare(wanted, "test")
    assert [line.partition(":")[0] for line in caught.value.problems] == ["template_kwargs", "sft.trainer.optimizer"]


def test_the_callback_refuses_a_wrong_name_when_its_trainer_is_made(random_folder: Path, tmp_path: Path) -> None:
    loaded = models.load_model(str(random_folder))
    callback = ValueDriftCallback(judge="lexical", template_kwargs={"mood": "calm"})
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    given = {"model": loaded.model, "processing_class": loaded.tokenizer}
    with pytest.raises(InputError, match="template_kwargs: found 'mood'"):
        callback.on_init_end(arguments, TrainerState(), TrainerControl(), **given)
