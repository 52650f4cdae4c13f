"""Files as teams have them: packed, by other names, in other shapes, and what is none of ours said in one line."""

import bz2
import gzip
import json
import lzma
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets
import pyarrow
import pytest

from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError

ROWS = [{"prompt": f"Question {i}?", "chosen": "Yes, gladly.", "rejected": "No, never."} for i in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return packed


def sheet(mark: str) -> bytes:
    lines = [mark.join(ROWS[0]), *(mark.join(f'"{cell}"' for cell in row.values()) for row in ROWS)]
    return "\n".join(lines).encode()


FILES: dict[str, bytes] = {
    "rows.jsonl.gz": gzip.compress(LINES),
    "rows.jsonl.bz2": bz2.compress(LINES),
    "rows.jsonl.xz": lzma.compress(LINES),
    "rows.jsonl.zst": zstd(LINES),
    "packed_without_saying.jsonl": gzip.compress(LINES),
    "rows.ndjson": LINES,
    "rows.tsv": sheet("\t"),
    "semicolon.csv": sheet(";"),
    "comma.csv": sheet(","),
    "list.json": json.dumps(ROWS).encode(),
    "under_a_key.json": json.dumps({"data": ROWS}).encode(),
    "under_a_key_on_lines.json": json.dumps({"version": 1, "rows": ROWS}, indent=2).encode(),
    "one_after_another.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    "pandas.json": json.dumps({n: {str(i): row[n] for i, row in enumerate(ROWS)} for n in ROWS[0]}).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_whatever_its_shape(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    rows = load_data(Data(uri=str(tmp_path / name)), "pairs").rows
    assert [row["prompt"][0]["content"] for row in rows] == [row["prompt"] for row in ROWS]
    assert {row["chosen"][0]["content"] for row in rows} == {"Yes, gladly."}


def test_an_arrow_file(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    [file] = (tmp_path / "saved").glob("*.arrow")
    assert len(load_data(Data(uri=str(file)), "pairs").rows) == len(ROWS)
    assert len(load_data(Data(uri=str(tmp_path / "saved")), "pairs").rows) == len(ROWS)
    with pytest.raises(InputError, match=r"split: found 'test', allowed: none: what was saved is one split"):
        load_data(Data(uri=str(tmp_path / "saved"), split="test"), "pairs")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        ("pointer.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        ("zipped.jsonl", b"PK\x03\x04\x14\x00\x00\x00", "a zip archive.*unzip zipped.jsonl"),
        ("wide.jsonl", LINES.decode().encode("utf-16"), "UTF-16.*save it as UTF-8"),
        ("wide.csv", sheet(",").decode().encode("utf-16"), "UTF-16.*save it as UTF-8"),
        ("a_number.json", b"42", "other json"),
    ],
)
def test_what_is_no_data_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_data(Data(uri=str(tmp_path / name)), "pairs")


@pytest.mark.parametrize("make", [lambda folder: folder / "rows.jsonl", lambda _: "embedded:pairs?size=4"])
def test_a_split_of_what_has_none_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    with pytest.raises(InputError, match=r"split: found 'test', allowed: none"):
        load_data(Data(uri=str(make(tmp_path)), split="test"), "pairs")


def test_a_folder_with_a_model_is_no_data(random_folder: Path) -> None:
    with pytest.raises(InputError, match="this folder holds a model"):
        load_data(Data(uri=str(random_folder)), "pairs")


def test_files_by_a_pattern_are_read_one_after_another(tmp_path: Path) -> None:
    lines = LINES.splitlines(keepends=True)
    for name, part in (("part-1.jsonl", lines[2:]), ("part-0.jsonl", lines[:2]), ("other.jsonl", lines)):
        (tmp_path / name).write_bytes(b"".join(part))
    rows = load_data(Data(uri=str(tmp_path / "part-*.jsonl")), "pairs").rows
    assert [row["prompt"][0]["content"] for row in rows] == [row["prompt"] for row in ROWS]
    (tmp_path / "part-1.jsonl").write_bytes(lines[2] + b"[]\n")
    with pytest.raises(InputError, match=r"part-1.jsonl row 2: found 'list"):
        load_data(Data(uri=str(tmp_path / "part-*.jsonl")), "pairs")
    with pytest.raises(InputError, match=r"part-9\*.jsonl', allowed: an existing file"):
        load_data(Data(uri=str(tmp_path / "part-9*.jsonl")), "pairs")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_another_encoding_is_named_with_its_line_and_the_mend(tmp_path: Path, name: str) -> None:
    told = LINES.decode() if name.endswith("jsonl") else sheet(",").decode()
    (tmp_path / name).write_bytes(told.replace("gladly", "caf\u00e9").encode("cp1252"))
    with pytest.raises(InputError) as caught:
        load_data(Data(uri=str(tmp_path / name)), "pairs")
    [line] = caught.value.problems
    assert "not UTF-8" in line and f"iconv -f cp1252 -t utf-8 {name}" in line
    assert f"in line {1 + name.endswith('csv')}" in line


def test_a_bad_byte_in_a_file_that_is_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    lines = [line.replace(b"gladly", "caf\u00e9".encode()) for line in LINES.splitlines(keepends=True)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join([*lines, lines[0].replace(b"never", b"\xe9")]))
    with pytest.raises(InputError, match=r"row 5: found .no json"):
        load_data(Data(uri=str(tmp_path / "rows.jsonl")), "pairs")
    assert load_data(Data(uri=str(tmp_path / "rows.jsonl"), on_bad_row="skip"), "pairs").bad == 1


def test_columns_of_bytes_are_texts(tmp_path: Path) -> None:
    import pyarrow.parquet

    columns = {name: [row[name].encode() for row in ROWS] for name in ROWS[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    rows = load_data(Data(uri=str(tmp_path / "rows.parquet")), "pairs").rows
    assert [row["prompt"][0]["content"] for row in rows] == [row["prompt"] for row in ROWS]


def test_lines_that_were_cut_out_of_a_list_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES.replace(b"}\n", b"},\n"))
    assert len(load_data(Data(uri=str(tmp_path / "rows.jsonl")), "pairs").rows) == len(ROWS)


def test_what_is_neither_here_nor_on_the_hub_is_said_after_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(InputError, match=r"nobody/nothing.*the hub cannot be reached, and the cache does not have it"):
        load_data(Data(uri="nobody/nothing"), "pairs")
    assert constants.HF_HUB_OFFLINE is False  # what was asked for to look into the cache is as it was


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("RepoNotFound", r"nobody/nothing', allowed: a file or folder here, or a dataset of the hub; there is neither"),
        ("RevisionNotFound", r"nobody/nothing revision: found 'v9', allowed: a revision that it has"),
        ("GatedRepo", r"a dataset that you may read; ask for access"),
    ],
)
def test_what_the_hub_says_of_a_dataset_is_said(monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    from huggingface_hub import constants

    class Hub(BaseHTTPRequestHandler):  # a server that answers as the hub does
        def do_GET(self) -> None:
            self.send_response(403 if code == "GatedRepo" else 404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(InputError, match=words):
            load_data(Data(uri="nobody/nothing", revision="v9"), "pairs")
        server.shutdown()


def test_a_file_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    with pytest.raises(InputError, match=r"revision: found 'v1', allowed: none: a file has no splits"):
        load_data(Data(uri=str(tmp_path / "rows.jsonl"), revision="v1"), "pairs")


@pytest.mark.parametrize(
    ("split", "numbers"),
    [("train[:25%]", [0, 1]), ("train[6:]", [6, 7]), ("train[:1]+train[7:]", [0, 7]), ("train", list(range(8)))],
)
def test_some_rows_of_files_are_asked_for_as_of_hub_datasets(tmp_path: Path, split: str, numbers: list[int]) -> None:
    """Eight rows in two files; what the datasets library reads from them is the same."""
    rows = [{"prompt": f"Question {n}?", "chosen": f"Yes, {n}.", "rejected": f"No, {n}."} for n in range(8)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, part in zip(files, (rows[:3], rows[3:]), strict=True):
        file.write_text("\n".join(map(json.dumps, part)))
    for uri in (f"{files[0]},{files[1]}", str(tmp_path / "*.jsonl")):
        found = load_data(Data(uri=uri, split=split), "pairs")
        assert [row["prompt"][0]["content"] for row in found.rows] == [f"Question {n}?" for n in numbers]
    peer = datasets.load_dataset("json", data_files=list(map(str, files)), split=split, cache_dir=str(tmp_path / "c"))
    assert peer["prompt"] == [f"Question {n}?" for n in numbers]


def test_a_slice_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "Why?", "chosen": "So.", "rejected": "Or so."}))
    for split in ("train[:x]", "test[:10%]", "test"):
        with pytest.raises(
            InputError, match=r"split: found .*allowed: none: a file has no splits, but slices as train"
        ):
            load_data(Data(uri=str(tmp_path / "a.jsonl"), split=split), "pairs")
