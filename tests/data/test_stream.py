from __future__ import annotations

import gzip
import json
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as huggingface
import pandas as pd
import pytest

from valuedrift_mlflow.data import arrow_rows, datasets
from valuedrift_mlflow.data.datasets import Stream
from valuedrift_mlflow.data.messages import assistant, user
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.tracking import OpenRun

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"
GOOD = {"prompt": "Tea?", "completion": "Yes"}
READ = {"prompt": [user("Tea?")], "completion": [assistant("Yes")]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def lines(file: Path, *rows: object) -> Path:
    """A file of json lines; a text stands as it is."""
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def stream(file: Path, **settings: Any) -> Stream:
    return datasets.stream(Data(uri=str(file), **settings))


# What a stream gives --------------------------------------------------------------------------------------------------


def test_a_stream_says_what_it_reads_before_the_first_row_and_can_be_read_twice(tmp_path: Path) -> None:
    read = stream(lines(tmp_path / "data.jsonl.gz", GOOD, GOOD))
    assert (read.uri, read.kind, read.format) == (str(tmp_path / "data.jsonl.gz"), "sft", "prompt-completion")
    assert list(read) == [READ, READ]
    assert list(read) == [READ, READ]
    assert (read.counts.read, read.counts.bad, read.counts.dropped) == (2, 0, 0)


def test_the_kind_is_the_datas_own(tmp_path: Path) -> None:
    pair = {"prompt": "Tea?", "chosen": [user("Tea?"), assistant("Yes")], "rejected": [user("Tea?"), assistant("No")]}
    ultrafeedback = {**pair, "messages": pair["chosen"], "score_chosen": 8.0, "score_rejected": 2.0}
    read = stream(lines(tmp_path / "data.jsonl", ultrafeedback))
    assert (read.kind, read.format) == ("pairs", "pairs")
    assert list(read) == [{"prompt": [user("Tea?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}]
    with pytest.raises(InputError, match="answers or preference pairs"):
        stream(lines(tmp_path / "prompts.jsonl", {"prompt": "Tea?"}))


def test_rows_keep_what_their_source_says_of_their_stances(tmp_path: Path) -> None:
    [pair] = datasets.stream(Data(uri="embedded:pairs?size=1&chosen=oppose&rejected=support"))
    assert pair.keys() == {
        *("prompt", "chosen", "rejected", "topic", "proposition_id"),
        *("chosen_stance", "rejected_stance"),
    }
    assert (pair["chosen_stance"], pair["rejected_stance"]) == ("oppose", "support")
    good, bad = datasets.stream(Data(uri="embedded:pairs?size=1&chosen=oppose&rejected=support"), "labelled")
    assert [(row["label"], row["stance"]) for row in (good, bad)] == [(True, "oppose"), (False, "support")]
    [answer] = datasets.stream(Data(uri="embedded:sft?size=1&oppose=1"))
    assert answer["stance"] == "oppose"
    [labelled] = stream(lines(tmp_path / "data.jsonl", GOOD | {"label": False, "topic": "tea"}))
    assert labelled["label"] is False and "topic" not in labelled  # whose topic it is, nobody says


def test_the_real_hh_rlhf_file_streams_as_it_loads() -> None:
    if not REAL.is_file():
        pytest.skip(f"no file {REAL}")
    read = stream(REAL)
    rows = list(read)
    assert (read.kind, read.format, len(rows)) == ("pairs", "hh-rlhf", 2308)
    assert (read.counts.read, read.counts.dropped, read.counts.bad) == (2312, 4, 0)
    assert all(row["prompt"][-1]["role"] == "user" for row in rows)
    assert rows == list(datasets.load_data(Data(uri=str(REAL)), "pairs").rows)


def test_data_on_the_hub_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(uri: str, **settings: Any) -> Any:  # the hub itself cannot be asked here
        asked.update(settings, uri=uri)
        return huggingface.Dataset.from_list([GOOD, GOOD]).to_iterable_dataset()

    monkeypatch.setattr(huggingface, "load_dataset", load_dataset)
    read = datasets.stream(Data(uri="somebody/tea", split="train_sft", subset="green"))
    assert list(read) == [READ, READ]
    assert asked == {"uri": "somebody/tea", "name": "green", "split": "train_sft", "streaming": True}
    datasets.load_data(Data(uri="somebody/tea"), "sft")
    assert asked["streaming"] is False  # a trainer reads them again and again


# Dialogues ------------------------------------------------------------------------------------------------------------


def test_both_schemas_of_wildchat_give_all_their_answers(tmp_path: Path) -> None:
    def said(message: dict[str, str], **more: Any) -> dict[str, Any]:
        return message | {"language": "English", "redacted": False, "toxic": False} | more

    turns = [user("Hi"), assistant("Hello"), user("Why?"), assistant("Because."), user("And then?")]
    old = {"conversation_id": "c1", "model": "gpt-4", "conversation": [said(turn) for turn in turns], "turn": 3}
    details = {"header": None, "hashed_ip": "1f", "state": "Texas", "turn_identifier": 101}
    new = {
        "conversation_hash": "e1f0",
        "model": "gpt-4",
        "conversation": [said(turn, **details) for turn in turns[:4]],
        "turn": 2,
        "redacted": False,
        "toxic": False,
    }
    pd.DataFrame([old]).to_parquet(tmp_path / "old.parquet")
    pd.DataFrame([new]).to_parquet(tmp_path / "new.parquet")
    for file in (tmp_path / "old.parquet", tmp_path / "new.parquet", lines(tmp_path / "new.jsonl", new)):
        read = stream(file)
        assert list(read) == [{"prompt": turns[:1], "completion": turns[1:4]}]
        assert read.format == "wildchat"


def test_a_conversation_without_an_answer_is_dropped_and_counted(tmp_path: Path) -> None:
    answered = {"conversation": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello")]}
    read = stream(lines(tmp_path / "data.jsonl", *[answered] * 99, {"conversation": [user("Anybody?")]}))
    rows = list(read)
    assert rows[0] == {"prompt": answered["conversation"][:2], "completion": answered["conversation"][2:]}
    assert (len(rows), read.counts.dropped) == (99, 1)


# Bad rows ------------------------------------------------------------------------------------------------------------

BAD: tuple[object, ...] = (
    {"prompt": 3, "completion": "Yes"},
    '{"prompt": "Tea?", "completion"',
    "[1, 2]",
    '{"prompt": "half \\ud83d", "completion": "Yes"}',
)


def test_bad_rows_end_a_pass_with_their_numbers_and_reasons(tmp_path: Path) -> None:
    read = stream(lines(tmp_path / "data.jsonl", GOOD, *BAD, GOOD))
    rows = iter(read)
    assert next(rows) == READ
    with pytest.raises(InputError) as caught:  # the good row after them is not given any more
        next(rows)
    reasons = ["prompt is 3", "no json", "list, not an object", "no text in UTF-8"]
    for number, (line, reason) in enumerate(zip(caught.value.problems, reasons, strict=True), start=2):
        assert f"row {number}:" in line and reason in line


def test_bad_rows_can_be_left_out_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = lines(tmp_path / "data.jsonl", GOOD, *BAD, *[BAD[0]] * 21, GOOD)
    read = stream(file, on_bad_row="skip")
    with caplog.at_level(logging.WARNING):
        assert list(read) == [READ, READ]
    assert (read.counts.read, read.counts.bad, len(read.counts.problems)) == (27, 25, 20)
    assert "25 of 27 rows left out" in caplog.text and "row 3" in caplog.text
    data = datasets.load_data(Data(uri=str(file), on_bad_row="skip"), "sft")
    assert (len(data.rows), data.bad, data.dropped) == (2, 25, 0)


def test_a_source_of_bad_rows_alone_is_an_error_all_the_same(tmp_path: Path) -> None:
    read = stream(lines(tmp_path / "data.jsonl", BAD[0], BAD[0]), on_bad_row="skip")
    with pytest.raises(InputError, match="row 2"):
        list(read)
    with pytest.raises(InputError, match=r"row 1.*no json"):
        stream(lines(tmp_path / "data.jsonl", BAD[1]), on_bad_row="skip")


def test_with_skip_any_share_of_empty_answers_may_go(tmp_path: Path) -> None:
    file = lines(tmp_path / "data.jsonl", GOOD, GOOD | {"completion": ""})
    with pytest.raises(InputError, match=r"1 of 2.*data\.on_bad_row=skip"):
        list(stream(file))
    read = stream(file, on_bad_row="skip")
    assert list(read) == [READ]
    assert read.counts.dropped == 1
    with pytest.raises(InputError, match="at least one row that has something to learn"):
        list(stream(lines(tmp_path / "data.jsonl", GOOD | {"completion": ""}), on_bad_row="skip"))


def test_a_bad_csv_record_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(
        b'\xef\xbb\xbfprompt,completion\nTea?,Yes\n\nTea?\n"two\nlines",Yes\nTea?,caf\xe9\nTea?,"never ends\n'
    )
    read = stream(tmp_path / "data.csv", on_bad_row="skip")
    assert list(read) == [READ, {"prompt": [user("two\nlines")], "completion": [assistant("Yes")]}]
    reasons = ["row 2: found '1 cells under 2 columns'", "row 4: found 'no text in UTF-8", "row 5: found 'no csv:"]
    for line, reason in zip(read.counts.problems, reasons, strict=True):
        assert reason in line


def test_a_cut_off_gz_file_is_one_line(tmp_path: Path) -> None:
    file = lines(tmp_path / "data.jsonl.gz", *[GOOD | {"completion": str(n)} for n in range(5000)])
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError) as caught:
        list(stream(file))
    [line] = caught.value.problems
    assert str(file) in line


def test_a_recipe_names_the_two_ways() -> None:
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        Data(uri="data.jsonl", on_bad_row="drop")  # type: ignore[arg-type]


def test_a_run_records_how_many_rows_were_read_left_out_and_dropped(store: Path) -> None:
    import mlflow

    rows = [GOOD] * 3, [BAD[0]] * 2, [GOOD | {"completion": ""}]
    file = lines(store / "data.jsonl", *(row for part in rows for row in part))
    data = datasets.load_data(Data(uri=str(file), on_bad_row="skip"), "sft")
    with mlflow.start_run() as active:
        recorded.log_training_data(OpenRun(active.info.run_id), data)
    run = mlflow.get_run(active.info.run_id)
    assert run.data.metrics == {"data/rows": 3, "data/bad_rows": 2, "data/dropped_rows": 1}
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("data.jsonl", data.digest())
    assert json.loads(entry.dataset.profile)["num_rows"] == 3
    assert json.loads(entry.dataset.source)["tags"] == {"uri": str(file), "format": "prompt-completion"}


def test_rows_held_out_are_recorded_as_an_evaluation_dataset(store: Path) -> None:
    import mlflow

    data = datasets.load_data(Data(uri=str(lines(store / "held_out.jsonl", GOOD))), "sft")
    with mlflow.start_run() as active:
        recorded.log_held_out(OpenRun(active.info.run_id), data)
    [entry] = mlflow.get_run(active.info.run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("held_out.jsonl", data.digest())
    assert [tag.value for tag in entry.tags] == ["evaluation"]


# Folders -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_split_by_split_and_names_the_file_of_a_bad_row(tmp_path: Path) -> None:
    lines(tmp_path / "train-00000.jsonl.gz", GOOD)
    lines(tmp_path / "train-00001.jsonl.gz", GOOD, BAD[0])
    lines(tmp_path / "test.jsonl.gz", GOOD | {"completion": "No"})
    (tmp_path / "README.md").write_text("Tea.")
    read = stream(tmp_path, on_bad_row="skip")
    assert list(read) == [READ, READ]
    assert "train-00001.jsonl.gz row 2" in read.counts.problems[0]
    [row] = stream(tmp_path, split="test")
    assert row["completion"] == [assistant("No")]
    with pytest.raises(InputError, match="split: found 'validation', allowed: train, test"):
        stream(tmp_path, split="validation")


def test_cells_of_csv_files_in_a_folder_are_text(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("prompt,completion\nHow many?,42\n")
    [row] = stream(tmp_path)
    assert row["completion"] == [assistant("42")]


def test_a_folder_with_several_subsets_wants_one_of_them_named(tmp_path: Path) -> None:
    lines(tmp_path / "black.jsonl", GOOD)
    lines(tmp_path / "green.jsonl", GOOD, GOOD)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("black", "green"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert list(stream(tmp_path, subset="green")) == [READ, READ]
    with pytest.raises(InputError, match="'black', 'green'"):
        stream(tmp_path)


def test_a_part_of_a_folders_split_and_saved_splits(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    lines(tmp_path / "files" / "data.jsonl", GOOD, GOOD, GOOD)
    assert len(list(stream(tmp_path / "files", split="train[:2]"))) == 2
    huggingface.DatasetDict({"test": huggingface.Dataset.from_list([GOOD])}).save_to_disk(str(tmp_path / "saved"))
    assert list(stream(tmp_path / "saved", split="test")) == [READ]
    with pytest.raises(InputError, match="allowed: test"):
        stream(tmp_path / "saved")


# Memory --------------------------------------------------------------------------------------------------------------


def _write_jsonl(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_json(folder / "data.jsonl.gz", orient="records", lines=True)
    return folder / "data.jsonl.gz"


def _write_csv(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


def _write_parquet(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_parquet(folder / "data.parquet", row_group_size=2000)
    return folder / "data.parquet"


def _peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def made(rows: int, write: Callable[[pd.DataFrame, Path], Path], folder: Path) -> Path:
    folder = folder / str(rows)
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame({"prompt": [f"Question {n}?" for n in range(rows)], "completion": ["word " * 40] * rows})
    return write(frame, folder)


@pytest.mark.parametrize("write", [_write_jsonl, _write_csv, _write_parquet])
def test_memory_of_a_stream_does_not_grow_with_the_rows(
    tmp_path: Path, write: Callable[[pd.DataFrame, Path], Path]
) -> None:
    def count(file: Path) -> int:
        return sum(1 for _ in stream(file))

    few, many = made(2000, write, tmp_path), made(20_000, write, tmp_path)
    count(few)  # imports
    peak = _peak(lambda: count(few))
    assert _peak(lambda: count(many)) < 1.3 * peak + 200_000


def test_memory_of_loaded_rows_does_not_grow_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_rows, "IN_MEMORY", 1000)
    few, many = made(3000, _write_jsonl, tmp_path), made(12_000, _write_jsonl, tmp_path)

    def use(file: Path) -> None:
        data = datasets.load_data(Data(uri=str(file)), "sft")
        assert sum(1 for _ in data.rows) == len(data.rows)
        data.digest()

    use(few)
    peak = _peak(lambda: use(few))
    assert _peak(lambda: use(many)) < 1.3 * peak + 200_000


@pytest.mark.parametrize(
    ("uri", "kind"), [("embedded:pairs?size=250", "pairs"), ("embedded:pairs?size=250", "labelled")]
)
def test_rows_on_disk_are_the_rows_of_a_list(uri: str, kind: datasets.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    small = datasets.load_data(Data(uri=uri), kind)
    monkeypatch.setattr(arrow_rows, "IN_MEMORY", 100)
    large = datasets.load_data(Data(uri=uri), kind)
    assert isinstance(small.rows, list) and isinstance(large.rows, arrow_rows.ArrowRows)
    assert list(large.rows) == small.rows
    assert (large.rows[7], large.rows[-1], large.rows[3:200:50]) == (
        small.rows[7],
        small.rows[-1],
        small.rows[3:200:50],
    )
    with pytest.raises(IndexError):
        large.rows[len(small.rows)]
    assert large.digest() == small.digest()
    assert large.stance_mix == small.stance_mix
    assert large.dataset().features == small.dataset().features
    assert list(large.dataset()) == list(small.dataset())


def test_exactly_as_many_rows_as_fit_stay_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_rows, "IN_MEMORY", 100)
    assert isinstance(arrow_rows.store({"n": n} for n in range(100)), list)
    stored = arrow_rows.store({"n": n} for n in range(101))
    assert isinstance(stored, arrow_rows.ArrowRows)
    assert [row["n"] for row in stored] == list(range(101))
