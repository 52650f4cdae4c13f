"""What people are told of their data before anything is computed."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.data.shown import line, safe, seen
from valuedrift_mlflow.models import load_tokenizer
from valuedrift_mlflow.models.speech import Speech

Row = dict[str, Any]


def turns(*said: str) -> list[Row]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]


def file_of(folder: Path, *rows: Row) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_one_line_says_what_was_read(tmp_path: Path) -> None:
    rows = [{"messages": turns("A?", "B.", "C?", "D.")}, {"messages": turns("A?", "")}, {"messages": "?"}]
    data = Data(uri=file_of(tmp_path, *rows), on_bad_row="skip")
    told = line(load_data(data, "sft"))
    assert "recognised as messages" in told
    assert told.endswith("1 rows from 3 rows, 2 answers trained (every answer); left out: 1 bad, 1 nothing to learn")
    assert "1 answers trained (last answers alone)" in line(load_data(data, "sft", turns="last"))
    read = stream(data)
    list(read)
    assert line(read) == told


def test_equal_sides_are_named(tmp_path: Path) -> None:
    pair = {"prompt": "A?", "chosen": "B.", "rejected": "C."}
    data = Data(uri=file_of(tmp_path, pair, pair | {"rejected": "B."}), on_bad_row="skip")
    assert line(load_data(data, "pairs")).endswith("1 pairs from 2 rows; left out: 1 equal sides")


def test_a_row_cannot_write_to_the_terminal() -> None:
    row = {"prompt": turns("Hi\n\x1b[31m"), "completion": turns("", "\u202eolleH")[1:]}
    assert seen(row) == ["completion: [user] Hi\\n\\x1b[31m [assistant] \\u202eolleH"]
    assert safe("ä\ud800") == "ä\\ud800"
    assert len(safe("a" * 9999)) < 320


def test_a_row_as_the_chat_template_shows_it(random_folder: Path) -> None:
    tokenizer = load_tokenizer(str(random_folder))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% if not enable_thinking %}(no thought){% endif %}{% endif %}"
    )
    row = {"prompt": turns("A?"), "chosen": turns("", "B.")[1:], "rejected": turns("", "C.")[1:]}
    assert seen(row, Speech().rendering(tokenizer)) == [
        "chosen: <user>A?\\n<assistant>(no thought)B.\\n",
        "rejected: <user>A?\\n<assistant>(no thought)C.\\n",
    ]
    assert seen({"prompt": turns("A?")}, Speech(thinking=True).rendering(tokenizer)) == [
        "prompt: <user>A?\\n<assistant>"
    ]


def test_the_dry_run_of_an_audit_shows_three_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"messages": turns(f"Question {at}?", f"Answer {at}.")} for at in range(9)]
    main(["audit", "--data", file_of(tmp_path, *rows), "--judge", "lexical", "--dry-run"])
    told = capsys.readouterr().out
    assert "row 3, completion: [user] Question 2? [assistant] Answer 2." in told
    assert "row 4" not in told


def test_the_dry_run_of_a_training_shows_a_row_and_finds_what_the_template_refuses(
    tmp_path: Path, random_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from transformers import AutoTokenizer

    model = shutil.copytree(random_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    tokenizer.save_pretrained(model)
    good, bad = turns("A?", "B."), [{"role": "system", "content": "S"}, *turns("A?", "B.")]
    uri = file_of(tmp_path, {"messages": good}, {"messages": bad})
    common = ["sft", "--model", str(model), "--data", uri, "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(common)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "row 2" in told
    assert "refuses the roles system, user, assistant: roles must alternate" in told
    main([*common, "--set", "sft.data.on_bad_row=skip"])
    told = capsys.readouterr().out
    assert "left out: 1 bad" in told
    assert "completion: <user>A?<assistant>B." in told
