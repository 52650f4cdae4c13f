"""Which tokens of a dialogue are trained: by hand, against TRL's own masks, and where a template changes old turns."""

from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import models
from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.models.loading import Loaded
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

_START = "{% for m in messages %}{{ '<' + m['role'] + '>' }}"
_ASK = "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = _START + "{{ m['content'] + eos_token + '\n' }}" + _ASK
MARKED = (
    _START + "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{{ '\n' }}" + _ASK
)
THINKING = (  # a thought before the last answer alone, as Qwen has it
    _START
    + "{% if m['role'] == 'assistant' and loop.last %}(hm){% endif %}{{ m['content'] + eos_token + '\n' }}"
    + _ASK
)
DIALOGUE = [
    {"role": "user", "content": "Tea?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is warm."},
]
ROWS = [
    {"prompt": DIALOGUE[:1], "completion": DIALOGUE[1:]},
    {"prompt": DIALOGUE[:1], "completion": DIALOGUE[1:2]},
]


@pytest.fixture(scope="module")
def loaded(random_folder: Path) -> Loaded:
    return models.load_model(str(random_folder))


def trained(loaded: Loaded, folder: Path, template: str | None, rows: list[dict[str, Any]], **own: Any) -> list[str]:
    """What each row trains, in brackets within the whole text that the model sees."""
    tree = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=2", "max_steps": 1, "max_length": 256} | own
    stage = read.validate({"stages": [tree]}).stages[0]
    loaded.tokenizer.chat_template = template
    data = TrainingData("made", "sft", "made", rows)
    trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, folder, 0))
    batch = trainer.data_collator([trainer.train_dataset[at] for at in range(len(trainer.train_dataset))])
    return [
        bracketed(loaded.tokenizer, *(batch[key][at][batch["attention_mask"][at] == 1].tolist() for key in KEYS))
        for at in range(len(batch["input_ids"]))
    ]


KEYS = ("input_ids", "labels")


def bracketed(tokenizer: Any, ids: list[int], labels: list[int]) -> str:
    text = ""
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        before, after = at and labels[at - 1] != -100, at + 1 < len(ids) and labels[at + 1] != -100
        piece = tokenizer.decode([token])
        text += f"{'[' if label != -100 and not before else ''}{piece}{']' if label != -100 and not after else ''}"
    return text.replace(tokenizer.eos_token, "$").replace(" ", "")


def test_answers_alone_by_hand(loaded: Loaded, tmp_path: Path) -> None:
    assert trained(loaded, tmp_path, PLAIN, ROWS) == [
        "<user>Tea?$\n<assistant>[Yes.$\n]<user>Why?$\n<assistant>[Itiswarm.$\n]",
        "<user>Tea?$\n<assistant>[Yes.$\n]",
    ]


def test_rows_of_one_answer_have_the_tokens_of_trl(loaded: Loaded, tmp_path: Path) -> None:
    assert trained(loaded, tmp_path, PLAIN, ROWS)[1:] == trained(loaded, tmp_path, PLAIN, ROWS[1:])


def test_what_generation_marks_say_is_what_trl_trains(loaded: Loaded, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    found = trained(loaded, tmp_path, MARKED, ROWS)
    assert found[0] == "<user>Tea?$\n<assistant>[Yes.$]\n<user>Why?$\n<assistant>[Itiswarm.$]\n"
    arguments = SFTConfig(str(tmp_path), assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False)
    dialogues = Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in ROWS])
    theirs = SFTTrainer(loaded.model, arguments, train_dataset=dialogues, processing_class=loaded.tokenizer)
    assert [bracketed(loaded.tokenizer, row["input_ids"], row["labels"]) for row in theirs.train_dataset] == found


def test_an_earlier_answer_that_has_lost_its_thought_is_trained_as_it_is_shown(loaded: Loaded, tmp_path: Path) -> None:
    assert trained(loaded, tmp_path, THINKING, ROWS[:1]) == [
        "<user>Tea?$\n<assistant>[Yes.$]\n<user>Why?$\n<assistant>[(hm)Itiswarm.$\n]"
    ]


def test_without_a_template_every_answer_is_a_row(loaded: Loaded, tmp_path: Path) -> None:
    first, second, again = trained(loaded, tmp_path, None, ROWS)
    assert first == again
    assert (first.count("["), second.count("[")) == (1, 1)
    assert "[Yes.$]" in first
    assert "[Itiswarm.$]" in second
    assert "Tea?" in second  # what was said before


def test_answers_behind_the_longest_row_are_counted(
    loaded: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (text,) = trained(loaded, tmp_path, PLAIN, ROWS[:1], max_length=16)
    assert text.count("[") == 1
    assert "1 answers begin behind max_length (16) and are not trained" in caplog.text
