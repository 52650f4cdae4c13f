"""What is trained is asked as what is measured: the same template arguments, the same text up to the answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import models
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.generation import chat_text
from valuedrift_mlflow.models.loading import Loaded
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job, Stage

_TURNS = "{% for m in messages %}<{{ m['role'] }}>"
_SAID = "{{ m['content'] + eos_token + '\n' }}{% endfor %}"
_ASK = "{% if add_generation_prompt %}<assistant>"
_OFF = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
# Of the kind of Granite's and of many merges: the empty thought stands in the question alone.
SWITCHED = _TURNS + _SAID + _ASK + _OFF
# Of the kind of Qwen's: the last answer of a dialogue has an empty thought too.
QWEN = (
    _TURNS + "{% if m['role'] == 'assistant' and loop.last and '<think>' not in m['content'] %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}" + _SAID + _ASK + _OFF
)
# Of the kind of DeepSeek's: the question opens a thought, which no dialogue shows.
OPENER = (
    _TURNS + "{{ m['content'].split('</think>')[-1] + eos_token + '\n' }}{% endfor %}" + _ASK + "<think>\n{% endif %}"
)
PERSONA = "{{ persona }}" + _TURNS + _SAID + _ASK + "{% endif %}"
MARKED = (
    _TURNS + "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}" + _ASK + _OFF
)
NO_THOUGHT = "<think>\n\n</think>\n\n"
ALGORITHMS = ["sft", "dpo", "kto", "simpo", "orpo", "anchored_dpo"]
ON = Speech(thinking=True)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


def stage_of(algorithm: str, **settings: Any) -> Stage:
    tree = {"name": algorithm, "algorithm": algorithm, "data": "embedded:pairs?size=2", "max_steps": 1}
    tree |= {"max_length": 256, "batch_size": 2}
    return read.validate({"stages": [tree | settings]}).stages[0]


def rows_of(kind: str, answer: str) -> list[dict[str, Any]]:
    asked, said, other = [user("Tea?")], [assistant(answer)], [assistant("No.")]
    if kind == "pairs":
        return [{"prompt": asked, "chosen": said, "rejected": other}] * 2
    if kind == "labelled":
        return [{"prompt": asked, "completion": side, "label": side is said} for side in (said, other)]
    return [{"prompt": asked, "completion": said}] * 2


def trained(
    loaded: Loaded, folder: Path, algorithm: str, template: str, speech: Speech, answer: str = "Yes."
) -> tuple[str, str]:
    """The first row as the trainer collates it: the text before what is trained, and that."""
    loaded.tokenizer.chat_template = template
    settings = {"anchor_weight": 0, "anchor_batch_size": 1, "anchor_tokens": 0} if algorithm == "anchored_dpo" else {}
    stage = stage_of(algorithm, **settings)
    data = TrainingData("made", stage.kind, "made", rows_of(stage.kind, answer))
    measured = models_suite() if algorithm == "anchored_dpo" else None
    job = Job(stage, loaded.model, loaded.tokenizer, data, folder, 0, anchors=measured, speech=speech)
    trainer: Any = build_trainer(job)
    batches = [trainer.data_collator([trainer.train_dataset[at]]) for at in range(len(trainer.train_dataset))]
    texts = [split(loaded.tokenizer, batch) for batch in batches]
    return next(text for text in texts if answer.rpartition(">")[2] in text[1])


def models_suite() -> Any:
    from valuedrift_mlflow.suite import anchors

    return anchors.load_anchors("embedded:anchors", [], [])


def split(tokenizer: Any, batch: dict[str, Any]) -> tuple[str, str]:
    side = "chosen_" if "chosen_input_ids" in batch else ""
    ids, mask = batch[f"{side}input_ids"][0], batch[f"{side}attention_mask"][0].bool()
    marks = batch.get(f"{side}completion_mask") if f"{side}labels" not in batch else batch[f"{side}labels"] != -100
    answered = marks[0].bool() & mask
    asked = tokenizer.decode(ids[mask & ~answered])
    return asked, tokenizer.decode(ids[answered]).replace(tokenizer.eos_token, "$").rstrip("\n")


@pytest.mark.parametrize("template", [SWITCHED, QWEN], ids=["question alone", "dialogue too"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_thought_stands_before_the_answer_and_is_not_trained(
    loaded: Loaded, tmp_path: Path, algorithm: str, template: str
) -> None:
    asked, said = trained(loaded, tmp_path, algorithm, template, Speech())
    assert asked == chat_text(loaded.tokenizer, "Tea?", Speech())
    assert asked.endswith(f"<assistant>{NO_THOUGHT}")
    assert said == "Yes.$"


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto", "simpo"])
def test_with_thinking_on_a_row_is_asked_as_the_template_asks_then(
    loaded: Loaded, tmp_path: Path, algorithm: str
) -> None:
    asked, said = trained(loaded, tmp_path, algorithm, SWITCHED, ON, "<think>Hm.</think>Yes.")
    assert asked == chat_text(loaded.tokenizer, "Tea?", ON)
    assert said == "<think>Hm.</think>Yes.$"


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "kto"])
def test_a_thought_that_the_question_opens_is_closed_before_an_answer_without_one(
    loaded: Loaded, tmp_path: Path, algorithm: str
) -> None:
    asked, said = trained(loaded, tmp_path, algorithm, OPENER, Speech())
    assert asked == chat_text(loaded.tokenizer, "Tea?")
    assert asked.endswith("<assistant><think>\n")
    assert said == "</think>\n\nYes.$"


def test_a_thought_of_the_data_takes_the_place_of_the_empty_one(loaded: Loaded, tmp_path: Path) -> None:
    asked, said = trained(loaded, tmp_path, "sft", SWITCHED, Speech(), "<think>Hm.</think>Yes.")
    assert asked + said == "<user>Tea?</s>\n<assistant><think>Hm.</think>Yes.$".replace(
        "</s>", loaded.tokenizer.eos_token
    )
    assert "Hm." in said


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_arguments_of_the_recipe_reach_every_row(loaded: Loaded, tmp_path: Path, algorithm: str) -> None:
    speech = Speech(template={"persona": "A judge. "})
    asked, said = trained(loaded, tmp_path, algorithm, PERSONA, speech)
    assert asked == chat_text(loaded.tokenizer, "Tea?", speech)
    assert asked.startswith("A judge. ")
    assert said == "Yes.$"


@pytest.mark.parametrize("template", [SWITCHED, MARKED])
def test_earlier_answers_of_a_dialogue_are_shown_as_what_was_said(
    loaded: Loaded, tmp_path: Path, template: str
) -> None:
    loaded.tokenizer.chat_template = template
    rows = [{"prompt": [user("Tea?")], "completion": [assistant("Yes."), user("Why?"), assistant("It is warm.")]}]
    data = TrainingData("made", "sft", "made", rows)
    trainer: Any = build_trainer(Job(stage_of("sft"), loaded.model, loaded.tokenizer, data, tmp_path, 0))
    row, end = trainer.train_dataset[0], loaded.tokenizer.eos_token
    text = f"<user>Tea?{end}\n<assistant>Yes.{end}\n<user>Why?{end}\n<assistant>{NO_THOUGHT}It is warm.{end}\n"
    assert loaded.tokenizer.decode(row["input_ids"]) == text
    learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert loaded.tokenizer.decode(learnt).replace("\n", "") == f"Yes.{end}It is warm.{end}"


def test_every_token_of_a_dialogue_is_trained_where_that_is_asked_for(loaded: Loaded, tmp_path: Path) -> None:
    loaded.tokenizer.chat_template = SWITCHED
    data = TrainingData("made", "sft", "made", rows_of("sft", "Yes."))
    stage = stage_of("sft", assistant_only=False)
    trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, tmp_path, 0))
    row = trainer.train_dataset[0]
    assert row["input_ids"] == row["labels"]
    assert NO_THOUGHT in loaded.tokenizer.decode(row["input_ids"])


def test_an_answer_that_begins_like_a_mark_loses_nothing(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = SWITCHED
    exchange = Speech().rendering(loaded.tokenizer).exchange([user("Tea?")], [assistant("<b>Yes</b>")])
    assert exchange.asked.endswith(NO_THOUGHT)
    assert exchange.said.startswith("<b>Yes</b>")


@pytest.mark.parametrize("field", ["chat_template_path", "eos_token"])
def test_fields_that_would_render_otherwise_are_refused(field: str) -> None:
    from valuedrift_mlflow.stages.trainer_settings import check_trainer

    with pytest.raises(InputError, match=rf"sft\.trainer\.{field}"):
        check_trainer(stage_of("sft", trainer={field: json.dumps("x")}))
