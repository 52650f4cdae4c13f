"""What data say of their own rows: answers labelled bad, labels beside pairs, pairs without a preference."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError

GIVEN = Path(__file__).parents[2].parent / "shared" / "data" / "formats"
needs_given = pytest.mark.skipif(
    not GIVEN.is_dir(), reason="the small files of teams' layouts are not beside the checkout"
)


def file_of(folder: Path, rows: list[dict[str, Any]]) -> Data:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(uri=str(file))


@pytest.mark.parametrize(("good", "bad"), [(True, False), (1, 0), ("true", "False"), (1.0, 0.0)])
def test_sft_learns_from_the_answers_labelled_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, good: object, bad: object
) -> None:
    rows = [
        {"prompt": f"Question {i}?", "completion": f"Answer {i}.", "label": bad if i % 3 else good} for i in range(9)
    ]
    with caplog.at_level(logging.WARNING):
        data = load_data(file_of(tmp_path, rows), "sft")
    assert [row["completion"][0]["content"] for row in data.rows] == ["Answer 0.", "Answer 3.", "Answer 6."]
    assert "6 answers labelled bad left out" in caplog.text
    assert len(list(stream(file_of(tmp_path, rows), "sft"))) == 3  # audits read the same rows


def test_answers_labelled_by_messages_too(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    rows = [{"messages": turns, "label": label} for label in (True, False, True)]
    assert len(load_data(file_of(tmp_path, rows), "sft").rows) == 2


def test_nothing_labelled_good_is_an_error(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "completion": "So.", "label": False}] * 3
    with pytest.raises(InputError, match=r"3 answers labelled bad.*allowed: at least one answer labelled good"):
        load_data(file_of(tmp_path, rows), "sft")


def test_other_labels_are_no_verdict(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}.", "label": "politics"} for i in range(4)]
    assert len(load_data(file_of(tmp_path, rows), "sft").rows) == 4


def test_a_label_beside_pairs_says_nothing_of_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "chosen": "Yes.", "rejected": "No.", "label": False} for i in range(6)]
    for kind in (None, "pairs"):
        read = list(stream(file_of(tmp_path, rows), kind))
        assert len(read) == 6
        assert not any("label" in row for row in read)


@pytest.mark.parametrize("other", ["Yes, gladly.", "Yes,  gladly.\n", " Yes, gladly."])
def test_pairs_that_differ_in_white_space_alone_are_dropped_and_counted(tmp_path: Path, other: str) -> None:
    same = {"prompt": "Is it fair?", "chosen": "Yes, gladly.", "rejected": other}
    rows = [{"prompt": f"Question {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(120)]
    data = load_data(file_of(tmp_path, [*rows, same]), "pairs")
    assert (len(data.rows), data.dropped) == (120, 1)
    with pytest.raises(InputError, match="2 of 2"):
        load_data(file_of(tmp_path, [same, same]), "pairs")


@needs_given
@pytest.mark.parametrize("name", ["kto_bool.jsonl", "kto_msgs.jsonl"])
def test_labelled_data_of_the_field_as_answers(name: str) -> None:
    labels = [json.loads(line)["label"] for line in (GIVEN / name).read_text().splitlines()]
    assert len(load_data(Data(uri=str(GIVEN / name)), "sft").rows) == sum(labels) < len(labels)


@needs_given
def test_a_file_of_equal_pairs_is_refused() -> None:
    with pytest.raises(InputError, match="8 of 8"):
        load_data(Data(uri=str(GIVEN / "same.jsonl")), "pairs")
